"""The mean over tasks: the meta-gradient of MAML (Finn et al. 2017, algorithm 1, line 10) up to the constant T."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metacl.aggregation.base import AGGREGATORS, Aggregator


@AGGREGATORS.register("mean")
class Mean(Aggregator):
    """Every task counts the same."""

    def combine(self, gradients: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """Sum in float64 in the order given, divided by T."""
        total = np.zeros(gradients[0].shape, dtype=np.float64)
        for gradient in gradients:
            total += gradient
        return total / len(gradients)
