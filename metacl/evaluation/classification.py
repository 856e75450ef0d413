"""How right class predictions are: precision, recall, F1, calibration. From counts, in numpy.

A class that was never predicted has precision 0, one that never occurs recall 0 (scikit-learn's ``zero_division=0``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Average = Literal["macro", "micro"]


@dataclass(frozen=True)
class PrecisionRecallF1:
    """Three figures, each a fraction of 1."""

    precision: float
    recall: float
    f1: float


def confusion(targets: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How often a true class (row) was taken for another (column); (N, N) counts from two (B,) of positions."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (targets, predicted), 1)
    return counts


def precision_recall_f1(counts: np.ndarray, average: Average) -> PrecisionRecallF1:
    """From a confusion matrix (N, N). "macro": mean over classes that occur or were predicted; "micro": over answers.

    F1 is the harmonic mean of precision and recall; "macro" averages the classes' F1 (van Rijsbergen 1979, ch. 7).
    """
    there = counts.sum(0) + counts.sum(1) > 0
    counts = counts[there][:, there]
    return _averaged(np.diag(counts), counts.sum(0), counts.sum(1), average)


def _averaged(right: np.ndarray, said: np.ndarray, true: np.ndarray, average: Average) -> PrecisionRecallF1:
    if average == "micro":
        right, said, true = (np.array([part.sum()]) for part in (right, said, true))
    shares = _ratio(right, said), _ratio(right, true), _ratio(2 * right, said + true)
    return PrecisionRecallF1(*(float(share.mean()) for share in shares))


def expected_calibration_error(confidences: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Mean distance between confidence and accuracy over equal bins of confidence (Guo et al. 2017, eq. 3).

    Parameters
    ----------
    confidences : (B,) in 0 … 1
        The probability of the class that was predicted.
    right : (B,) of bool
        Whether it was right.
    """
    # A bin holds its upper edge, as in the paper; a confidence of 0 belongs to the first.
    places = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=right - confidences, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidences))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
