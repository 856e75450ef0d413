"""How the meta-gradients of one meta-batch become one. Pure arithmetic: no Ray, no models."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from metacl.registry import Component, Registry
from metacl.tasks import TaskAddress

BLOCK = 1 << 16
"""Coordinates that a coordinate-wise aggregator sorts at a time, so that it holds T × BLOCK numbers in float64."""

CACHED = 1 << 15
"""Coordinates that are summed over all tasks before the next ones: their sum stays in a core's cache meanwhile."""


@dataclass(frozen=True)
class Contribution:
    """One task's flat meta-gradient (P,) or a part of it, and the number of query examples that it is of.

    norm : ‖g‖ of the task's whole gradient, which a part cannot tell; None: `gradient` is the whole.
    """

    address: TaskAddress
    gradient: NDArray[np.float32]
    examples: int = 1
    norm: float | None = None

    @property
    def whole_norm(self) -> float:
        """‖g‖ of the whole gradient."""
        return euclidean_norm(self.gradient) if self.norm is None else self.norm


class Aggregator(Component):
    """Combines T flat meta-gradients that are already in address order.

    Sums of floating-point numbers depend on their order, so aggregators work in float64, in the order given;
    the result is rounded to float32 once, by the caller.

    by_coordinates : every coordinate is combined by itself (norms of whole gradients are given), so that `combine` may
    be asked for any range of coordinates and gives the same bits.
    """

    by_coordinates: ClassVar[bool] = False

    @abstractmethod
    def combine(self, contributions: Sequence[Contribution]) -> NDArray[np.float64]:
        """(P,) from T contributions of (P,), T >= 1."""


AGGREGATORS: Registry[Aggregator] = Registry("aggregator", "outer.aggregator")


def euclidean_norm(gradient: NDArray[np.float32]) -> float:
    """‖g‖ in float64: the same bits for any number of threads, as no BLAS is asked."""
    squares = (
        np.square(gradient[begin : begin + CACHED], dtype=np.float64).sum() for begin in range(0, gradient.size, CACHED)
    )
    return math.sqrt(sum(map(float, squares)))


def weighted_mean(
    gradients: Sequence[NDArray[np.float32]], weights: Sequence[float], divisor: float
) -> NDArray[np.float64]:
    """Σ w·g / divisor in float64, in the order given."""
    total = np.zeros(gradients[0].shape, dtype=np.float64)
    row = np.empty(CACHED, dtype=np.float64)
    for begin in range(0, total.size, CACHED):
        here = total[begin : begin + CACHED]
        product = row[: here.size]
        for gradient, weight in zip(gradients, weights, strict=True):
            np.copyto(product, gradient[begin : begin + CACHED])
            if weight != 1:
                product *= weight
            here += product
        here /= divisor
    return total


def blocks(contributions: Sequence[Contribution]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """(where, T × at most BLOCK numbers there), over all coordinates."""
    for begin in range(0, contributions[0].gradient.size, BLOCK):
        where = slice(begin, begin + BLOCK)
        yield where, np.stack([c.gradient[where] for c in contributions]).astype(np.float64)
