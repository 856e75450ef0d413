"""The mean over tasks: the meta-gradient of MAML (Finn et al. 2017, algorithm 1, line 10) up to the constant T."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from metacl.aggregation.base import AGGREGATORS, Aggregator, Contribution, weighted_mean


@AGGREGATORS.register("mean")
class Mean(Aggregator):
    """Every task counts the same."""

    by_coordinates: ClassVar[bool] = True

    def combine(self, contributions: Sequence[Contribution]) -> NDArray[np.float64]:
        """Sum in float64 in the order given, divided by T."""
        return weighted_mean([c.gradient for c in contributions], [1] * len(contributions), len(contributions))
