"""Means over episodes with their intervals, and differences between methods on the same episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
NUMBERS_AT_ONCE = 2**22
"""Of a bootstrap's resamples in memory."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Estimate):
    """A mean paired difference with its 95 % interval and the p value of the two-sided paired t test."""

    p_value: float


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean of n >= 2 independent values with Student's t interval, n − 1 degrees of freedom."""
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2:
        raise ValueError("an interval needs at least two values")
    mean = float(array.mean())
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, array.size - 1) * array.std(ddof=1) / np.sqrt(array.size))
    return Estimate(mean, mean - half, mean + half)


def paired_difference(values: Sequence[float], others: Sequence[float]) -> Difference:
    """Mean of ``values − others``, episode by episode, with the interval and p value of the paired t test.

    Differences that are all equal have p = 0, or 1 where they are all 0.
    """
    if len(values) != len(others):
        raise ValueError(f"paired values must come from the same episodes: got {len(values)} and {len(others)}")
    found = mean_interval([a - b for a, b in zip(values, others, strict=True)])
    half = found.high - found.mean
    if half == 0:
        return Difference(found.mean, found.low, found.high, float(found.mean == 0))
    degrees = len(values) - 1
    t = found.mean / half * float(stats.t.ppf(0.5 + CONFIDENCE / 2, degrees))
    return Difference(found.mean, found.low, found.high, float(2 * stats.t.sf(abs(t), degrees)))


def bootstrap_interval(values: Sequence[float], seed: int = 0, resamples: int = 9999) -> Estimate:
    """Mean of n >= 2 independent values with the bias-corrected accelerated bootstrap interval (Efron 1987).

    For values that are far from normal, where few of them make Student's interval wrong. The same seed gives the same.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2:
        raise ValueError("an interval needs at least two values")
    mean = float(array.mean())
    if np.ptp(array) == 0:
        return Estimate(mean, mean, mean)
    found = stats.bootstrap(
        (array,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=resamples,
        batch=max(1, NUMBERS_AT_ONCE // array.size),
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(mean, float(found.low), float(found.high))


def spread(values: Sequence[float]) -> float:
    """Standard deviation (n − 1) of the means of n >= 2 splits or seeds: what another choice of them would change."""
    if len(values) < 2:
        raise ValueError("a spread needs at least two values")
    return float(np.std(np.asarray(values, dtype=np.float64), ddof=1))
