"""Projecting conflicting gradients: PCGrad (Yu et al. 2020, "Gradient Surgery for Multi-Task Learning", algorithm 1).

The paper visits the other tasks in random order, because what is left depends on it. Here the order is drawn from each
task's address, so that it is the same whoever computes what.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metacl.aggregation.base import AGGREGATORS, Aggregator, Contribution
from metacl.tasks.randomness import AddressedRandom


@AGGREGATORS.register("pcgrad")
class PCGrad(Aggregator):
    """Each task's gradient loses what points against another's; the mean of what is left.

    Takes T² products of P numbers, and T gradients in memory in float64 at the most two at a time.
    """

    def combine(self, contributions: Sequence[Contribution]) -> NDArray[np.float64]:
        """For each i: g ← g_i; for j ≠ i in i's order: g ← g − (g·g_j / ‖g_j‖²) g_j where g·g_j < 0. The mean of all g.

        The paper sums; the mean is the same direction, at the size of the other aggregators.
        """
        total = np.zeros(contributions[0].gradient.shape, dtype=np.float64)
        for task, contribution in enumerate(contributions):
            left = contribution.gradient.astype(np.float64)
            others = [other for other in range(len(contributions)) if other != task]
            for other in AddressedRandom(contribution.address).sample(others, len(others)):
                against = contributions[other].gradient.astype(np.float64)
                product = left @ against
                if product < 0:
                    left -= product / (against @ against) * against
            total += left
        return total / len(contributions)
