"""What a whole adaptation curve says: the area under it, and the steps until it is as good as the best baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metacl.evaluation.few_shot import Scores, by_row
from metacl.evaluation.methods import META_LEARNED, PRETRAINED, Row
from metacl.evaluation.statistics import Difference, Estimate, mean_interval, paired_difference


@dataclass(frozen=True)
class Curve:
    """Of one method that was asked after several numbers of steps.

    first, last : those numbers' least and greatest. area : the mean accuracy between them, straight lines between the
    numbers asked; a fraction of 1. versus_pretrained : the area less the pretrained curve's, over the steps that both
    were asked after, paired by episode; None where there is no such curve.
    steps_to_baseline : the fewest steps after which its mean is at least that of the best row that is not meta-learned;
    None if it never is.
    """

    method: str
    first: int
    last: int
    area: Estimate
    versus_pretrained: Difference | None
    steps_to_baseline: int | None


def curves(*splits: Scores) -> list[Curve]:
    """A line for each method with two numbers of steps or more, over the episodes of all class splits together."""
    scores = by_row(score for split in splits for of_episode in split.values() for score in of_episode)
    accuracies = {row: np.array([score.accuracy for score in of_row]) for row, of_row in scores.items()}
    baselines = [of_row.mean() for row, of_row in accuracies.items() if row.method != META_LEARNED]
    found = []
    for method in dict.fromkeys(row.method for row in accuracies):
        curve = _curve(accuracies, method)
        if len(curve) < 2:
            continue
        reached = [step for step, of_step in curve.items() if baselines and of_step.mean() >= max(baselines)]
        found.append(
            Curve(
                method,
                min(curve),
                max(curve),
                mean_interval(_areas(curve, sorted(curve)).tolist()),
                _versus(curve, _curve(accuracies, PRETRAINED)) if method != PRETRAINED else None,
                min(reached, default=None),
            )
        )
    return found


def _curve(accuracies: Mapping[Row, np.ndarray], method: str) -> dict[int, np.ndarray]:
    """Steps -> accuracy of each episode."""
    return {row.steps: of_row for row, of_row in accuracies.items() if row.method == method and row.steps is not None}


def _versus(curve: Mapping[int, np.ndarray], other: Mapping[int, np.ndarray]) -> Difference | None:
    common = sorted(set(curve) & set(other))
    if len(common) < 2:
        return None
    return paired_difference(_areas(curve, common).tolist(), _areas(other, common).tolist())


def _areas(curve: Mapping[int, np.ndarray], steps: Sequence[int]) -> np.ndarray:
    """Of each episode, by the trapezoidal rule, divided by the width."""
    heights = np.stack([curve[step] for step in steps])
    return np.trapezoid(heights, steps, axis=0) / (steps[-1] - steps[0])
