"""How much hangs on the inner step sizes: both starts, with all step sizes times a factor, on the same episodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import PositiveFloat

from metacl.evaluation.few_shot import Scores, table
from metacl.evaluation.methods import META_LEARNED, InnerSteps, Predictor, Row, Scene
from metacl.evaluation.methods.inner_steps import after_steps
from metacl.evaluation.statistics import Estimate


class ScaledSteps(InnerSteps):
    """The run's own inner loop with step sizes that are `factor` times what they are."""

    start: Literal["meta-learned", "pretrained"]
    factor: PositiveFloat

    def rows(self) -> list[Row]:
        """One a number of steps."""
        return [Row(f"{self.start}, step sizes × {self.factor:g}", step) for step in sorted(set(self.steps))]

    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """As of the start's own method."""
        worker = scene.worker
        meta = scene.meta if self.start == META_LEARNED else worker.layout.flatten(worker.initial)
        loop, params = worker.config.inner.scaled(worker.parameters(meta), self.factor)
        config = worker.config.model_copy(update={"inner": loop})
        for row, (_, predictor) in zip(self.rows(), after_steps(scene, config, params, self.steps), strict=True):
            yield row, predictor


@dataclass(frozen=True)
class Robustness:
    """One start, one factor: the accuracy after so many inner steps, and the episodes on which adapting diverged."""

    start: str
    factor: float
    steps: int
    accuracy: Estimate
    diverged: int


def scaled_steps(factors: Sequence[float], steps: int) -> list[ScaledSteps]:
    """Both starts with each factor."""
    return [
        ScaledSteps(steps=(steps,), start=start, factor=factor)
        for start in ("pretrained", "meta-learned")
        for factor in sorted(set(factors))
    ]


def robustness(methods: Sequence[ScaledSteps], *splits: Scores) -> list[Robustness]:
    """A line for each method, over the episodes of all class splits together."""
    return [
        Robustness(method.start, method.factor, method.steps[0], row.accuracy, row.diverged)
        for method, row in zip(methods, table(*splits), strict=True)
    ]
