"""The mean over examples: FedAvg's weights n_k / n, with a task's query examples for n_k.

McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from metacl.aggregation.base import AGGREGATORS, Aggregator, Contribution, weighted_mean


@AGGREGATORS.register("example_weighted")
class ExampleWeighted(Aggregator):
    """Every query example counts the same, so a task counts by how many it has."""

    by_coordinates: ClassVar[bool] = True

    def combine(self, contributions: Sequence[Contribution]) -> NDArray[np.float64]:
        """Σ n_k g_k / Σ n_k."""
        examples = [c.examples for c in contributions]
        return weighted_mean([c.gradient for c in contributions], examples, sum(examples))
