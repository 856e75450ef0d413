"""Ways to adapt to an episode's support set, compared on the same episodes.

Each yields, for every number of steps asked for, the query scores it would give; what it costs to get there
is timed without the time to answer the query.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from metacl.coordination.flat import Flat
from metacl.coordination.worker import Worker
from metacl.learners.base import Params, Task
from metacl.metagradients import plain_gradient, trajectory
from metacl.objectives import class_means

FROZEN, PRETRAINED, META_LEARNED = "frozen prototypes", "pretrained", "meta-learned"
"""The names that rows of the closing table go by."""


@dataclass(frozen=True)
class Row:
    """One line of a comparison: a method, and the inner steps it took (None: it takes none)."""

    method: str
    steps: int | None


@dataclass(frozen=True)
class Answer:
    """What a method says of the query: scores (Q, N), and the seconds it took to adapt."""

    row: Row
    scores: Tensor
    seconds: float


class Method(Protocol):
    """A way to adapt. Plain data, since it travels to the workers."""

    def rows(self) -> list[Row]:
        """The rows it fills, in order."""
        ...

    def answers(self, worker: Worker, task: Task, meta: Flat) -> Iterator[Answer]:
        """One answer a row."""
        ...


@dataclass(frozen=True)
class FrozenPrototypes:
    """Cosine similarity to the class means of the pretrained features; nothing is trained (Snell et al. 2017)."""

    name: str = FROZEN

    def rows(self) -> list[Row]:
        """One."""
        return [Row(self.name, None)]

    def answers(self, worker: Worker, task: Task, meta: Flat) -> Iterator[Answer]:
        """Scores are cosines up to the query's length, which does not change their order."""
        started = time.perf_counter()
        with torch.no_grad():
            initial = {name: tensor.to(worker.learner.device) for name, tensor in worker.initial.items()}
            support = torch.nn.functional.normalize(worker.learner.features(initial, task.support), dim=-1)
            assert task.support.targets is not None
            means = torch.nn.functional.normalize(class_means(support, task.support.targets, task.ways), dim=-1)
            seconds = time.perf_counter() - started
            yield Answer(Row(self.name, None), worker.learner.features(initial, task.query) @ means.T, seconds)


@dataclass(frozen=True)
class InnerSteps:
    """The run's own inner loop, from the pretrained start or from the meta-learned initialization."""

    name: str
    pretrained: bool
    steps: tuple[int, ...]

    def rows(self) -> list[Row]:
        """One a number of steps."""
        return [Row(self.name, step) for step in sorted(set(self.steps))]

    def answers(self, worker: Worker, task: Task, meta: Flat) -> Iterator[Answer]:
        """Scores are logits."""
        config = worker.config
        flat = worker.layout.flatten(worker.initial) if self.pretrained else meta
        params: Params = worker.parameters(flat)
        loop = config.inner.model_copy(update={"steps": max(self.steps)})
        problem = config.objective.problem(worker.learner, params, task, loop)
        started = time.perf_counter()
        with torch.no_grad():
            theta = problem.start(params)
        asking = 0.0
        for step, state in enumerate(trajectory(problem, plain_gradient(problem), theta)):
            if step in self.steps:
                seconds = time.perf_counter() - started - asking
                with torch.no_grad():
                    bound = config.objective.bind(state.theta, params)
                    scores = config.objective.outputs(worker.learner, bound, task.query)
                asking += time.perf_counter() - started - asking - seconds
                yield Answer(Row(self.name, step), scores, seconds)


def default_methods(steps: Sequence[int], features: bool = True) -> list[Method]:
    """What a meta-learned initialization has to beat, and itself. Prototypes need a learner with `features`."""
    steps = tuple(steps)
    trained = tuple(step for step in steps if step > 0)
    return [
        *([FrozenPrototypes()] if features else []),
        *([InnerSteps(PRETRAINED, True, trained)] if trained else []),
        InnerSteps(META_LEARNED, False, steps),
    ]
