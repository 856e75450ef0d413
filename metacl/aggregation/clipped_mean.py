"""The mean of gradients clipped to one norm each: g · min(1, S / ‖g‖). No noise is added.

McMahan et al. 2018, "Learning Differentially Private Recurrent Language Models", section 3, flat clipping. S may be the
median of the norms, the quantile that Andrew et al. 2021 track ("Differentially Private Learning with Adaptive
Clipping").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from metacl.aggregation.base import AGGREGATORS, Aggregator, Contribution, weighted_mean


@AGGREGATORS.register("clipped_mean")
class ClippedMean(Aggregator):
    """No task pulls further than `norm`; null for the median of the tasks' norms."""

    norm: PositiveFloat | None = None
    by_coordinates: ClassVar[bool] = True

    def combine(self, contributions: Sequence[Contribution]) -> NDArray[np.float64]:
        """Mean of g · min(1, S / ‖g‖); norms in float64."""
        norms = [c.whole_norm for c in contributions]
        limit = float(np.median(norms)) if self.norm is None else self.norm
        scales = [limit / norm if norm > limit else 1.0 for norm in norms]
        return weighted_mean([c.gradient for c in contributions], scales, len(contributions))
