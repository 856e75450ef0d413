"""The few-shot protocol: every method on the same episodes of classes that training never saw."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from metacl.config import Evaluation
from metacl.coordination.executor import Executor
from metacl.coordination.flat import Flat
from metacl.coordination.worker import Meta, Work, Worker
from metacl.evaluation.methods import FROZEN, META_LEARNED, PRETRAINED, Method, Row
from metacl.evaluation.statistics import Estimate, mean_interval, paired_difference
from metacl.metagradients import InnerLoopDiverged
from metacl.tasks import EpisodeShape, TaskAddress

SAME_STEPS = "pretrained, same steps"
BEST_PRETRAINED = "pretrained, best row"
SAME_START = "same start, 0 steps"
"""What a row can be compared with, besides the frozen prototypes."""


@dataclass(frozen=True)
class EpisodeScore:
    """One method's query accuracy on one episode, and the seconds it took to adapt.

    A method whose adaptation or scores stop being finite has `diverged`; its answer counts as wrong.
    """

    row: Row
    accuracy: float
    seconds: float
    diverged: bool = False


@dataclass(frozen=True)
class CompareMethods(Work[tuple[EpisodeScore, ...]]):
    """All methods on one episode, which is encoded once."""

    methods: tuple[Method, ...]
    shape: EpisodeShape

    def __call__(self, worker: Worker, address: TaskAddress, meta: Flat) -> tuple[EpisodeScore, ...]:
        """Scores in the order of the methods' rows."""
        task = worker.learner.prepare(worker.source.episode(address, self.shape))
        assert task.query.targets is not None
        scores: list[EpisodeScore] = []
        for method in self.methods:
            found = {row: EpisodeScore(row, 0.0, 0.0, diverged=True) for row in method.rows()}
            with contextlib.suppress(InnerLoopDiverged):
                for answer in method.answers(worker, task, meta):
                    correct = torch.eq(answer.scores.argmax(-1), task.query.targets)
                    if bool(torch.isfinite(answer.scores).all()):
                        found[answer.row] = EpisodeScore(answer.row, float(correct.double().mean()), answer.seconds)
            scores += found.values()
        return tuple(scores)


@dataclass(frozen=True)
class RowResult:
    """One line of the table. Accuracies and differences are fractions of 1; seconds are means per episode.

    versus : paired differences, by what is compared with (`FROZEN`, `SAME_STEPS`, `BEST_PRETRAINED`, `SAME_START`);
    only those that make sense for the row.
    diverged : episodes on which the method's adaptation was not finite; they count as wrong.
    """

    method: str
    steps: int | None
    accuracy: Estimate
    seconds: float
    versus: dict[str, Estimate]
    diverged: int


def evaluate(
    executor: Executor,
    meta: Meta,
    methods: Sequence[Method],
    evaluation: Evaluation,
    on_episode: Callable[[int, int], None],
) -> list[RowResult]:
    """Run all methods on ``evaluation.episodes`` episodes.

    Parameters
    ----------
    on_episode : (done, of)
        Called as episodes finish.
    """
    work = CompareMethods(tuple(methods), evaluation.shape)
    addresses = [TaskAddress(evaluation.split, evaluation.seed, 0, index) for index in range(evaluation.episodes)]
    scores: dict[TaskAddress, tuple[EpisodeScore, ...]] = {}
    for done in executor.map(work, addresses, meta):
        scores[done.address] = done.result
        on_episode(len(scores), len(addresses))
    by_row: dict[Row, list[EpisodeScore]] = {}
    for address in addresses:
        for score in scores[address]:
            by_row.setdefault(score.row, []).append(score)
    accuracies = {row: [score.accuracy for score in of_row] for row, of_row in by_row.items()}
    return [
        RowResult(
            method=row.method,
            steps=row.steps,
            accuracy=mean_interval(accuracies[row]),
            seconds=sum(score.seconds for score in by_row[row]) / len(by_row[row]),
            versus={
                name: paired_difference(accuracies[row], accuracies[other])
                for name, other in _opponents(row, accuracies)
            },
            diverged=sum(score.diverged for score in by_row[row]),
        )
        for row in by_row
    ]


def _opponents(row: Row, accuracies: dict[Row, list[float]]) -> list[tuple[str, Row]]:
    pretrained = [other for other in accuracies if other.method == PRETRAINED]
    candidates = [
        (FROZEN, Row(FROZEN, None)),
        (SAME_STEPS, Row(PRETRAINED, row.steps)),
        (SAME_START, Row(row.method, 0)),
    ]
    if pretrained and row.method == META_LEARNED:
        # The best on these very episodes: chosen in the baseline's favour.
        best = max(pretrained, key=lambda other: sum(accuracies[other]))
        candidates.append((BEST_PRETRAINED, best))
    return [(name, other) for name, other in candidates if other in accuracies and other != row]


def as_dict(rows: Sequence[RowResult]) -> list[dict[str, Any]]:
    """The table as plain values, for results.json."""
    return [asdict(row) for row in rows]
