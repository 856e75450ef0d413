"""How the meta-gradients of one meta-batch become one. Pure arithmetic: no Ray, no models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metacl.registry import Component, Registry


class Aggregator(Component):
    """Combines T flat meta-gradients that are already in address order.

    Sums of floating-point numbers depend on their order, so aggregators work in float64, in the order given;
    the result is rounded to float32 once, by the caller.
    """

    def combine(self, gradients: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """(P,) from T arrays of (P,), T >= 1."""
        raise NotImplementedError  # pragma: no cover - an interface


AGGREGATORS: Registry[Aggregator] = Registry("aggregator", "outer.aggregator")
