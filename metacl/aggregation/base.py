"""How the meta-gradients of one meta-batch become one. Pure arithmetic: no Ray, no models."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metacl.registry import Component, Registry
from metacl.tasks import TaskAddress

BLOCK = 1 << 16
"""Coordinates that a coordinate-wise aggregator sorts at a time, so that it holds T × BLOCK numbers in float64."""


@dataclass(frozen=True)
class Contribution:
    """One task's flat meta-gradient (P,), and the number of query examples that it is of."""

    address: TaskAddress
    gradient: NDArray[np.float32]
    examples: int = 1


class Aggregator(Component):
    """Combines T flat meta-gradients that are already in address order.

    Sums of floating-point numbers depend on their order, so aggregators work in float64, in the order given;
    the result is rounded to float32 once, by the caller.
    """

    @abstractmethod
    def combine(self, contributions: Sequence[Contribution]) -> NDArray[np.float64]:
        """(P,) from T contributions of (P,), T >= 1."""


AGGREGATORS: Registry[Aggregator] = Registry("aggregator", "outer.aggregator")


def weighted_mean(gradients: Sequence[NDArray[np.float32]], weights: Sequence[float]) -> NDArray[np.float64]:
    """Σ w·g / Σ w in float64, in the order given."""
    total = np.zeros(gradients[0].shape, dtype=np.float64)
    for gradient, weight in zip(gradients, weights, strict=True):
        total += gradient if weight == 1 else np.multiply(gradient, weight, dtype=np.float64)
    return total / sum(weights)


def blocks(contributions: Sequence[Contribution]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """(where, T × at most BLOCK numbers there), over all coordinates."""
    for begin in range(0, contributions[0].gradient.size, BLOCK):
        where = slice(begin, begin + BLOCK)
        yield where, np.stack([c.gradient[where] for c in contributions]).astype(np.float64)
