"""The median of every coordinate.

Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", definition 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from metacl.aggregation.base import AGGREGATORS, Aggregator, Contribution, blocks


@AGGREGATORS.register("coordinate_median")
class CoordinateMedian(Aggregator):
    """Unmoved by less than half of the tasks, however wild; the mean of the middle two where T is even."""

    by_coordinates: ClassVar[bool] = True

    def combine(self, contributions: Sequence[Contribution]) -> NDArray[np.float64]:
        """Median over tasks, coordinate by coordinate."""
        combined = np.empty(contributions[0].gradient.shape, dtype=np.float64)
        for where, numbers in blocks(contributions):
            combined[where] = np.median(numbers, axis=0)
        return combined
