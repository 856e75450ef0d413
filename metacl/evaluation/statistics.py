"""Means over episodes with their intervals, and differences between methods on the same episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean of n >= 2 independent values with Student's t interval, n − 1 degrees of freedom."""
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2:
        raise ValueError("an interval needs at least two values")
    mean = float(array.mean())
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, array.size - 1) * array.std(ddof=1) / np.sqrt(array.size))
    return Estimate(mean, mean - half, mean + half)


def paired_difference(values: Sequence[float], others: Sequence[float]) -> Estimate:
    """Mean of ``values − others``, episode by episode, with its t interval (the interval of the paired t test)."""
    if len(values) != len(others):
        raise ValueError(f"paired values must come from the same episodes: got {len(values)} and {len(others)}")
    return mean_interval([a - b for a, b in zip(values, others, strict=True)])
