"""The trimmed mean of every coordinate.

Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", definition 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from metacl.aggregation.base import AGGREGATORS, Aggregator, Contribution, blocks


@AGGREGATORS.register("trimmed_mean")
class TrimmedMean(Aggregator):
    """The mean without the `fraction` largest and the `fraction` smallest numbers, rounded down to whole tasks."""

    by_coordinates: ClassVar[bool] = True

    fraction: Annotated[float, Field(ge=0, lt=0.5)] = 0.1

    def combine(self, contributions: Sequence[Contribution]) -> NDArray[np.float64]:
        """Sorted coordinate by coordinate; ⌊fraction · T⌋ are cut at each end."""
        cut, tasks = int(self.fraction * len(contributions)), len(contributions)
        combined = np.empty(contributions[0].gradient.shape, dtype=np.float64)
        for where, numbers in blocks(contributions):
            numbers.sort(axis=0)
            total = numbers[cut].copy()
            for row in numbers[cut + 1 : tasks - cut]:  # one after the other: numpy would sum a lone column in pairs
                total += row
            combined[where] = total / (tasks - 2 * cut)
        return combined
