"""The few-shot protocol: every method on the same episodes of classes that training never saw."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from metacl.config import Evaluation
from metacl.coordination.executor import Executor
from metacl.coordination.flat import Flat
from metacl.coordination.worker import Meta, Work, Worker
from metacl.evaluation.classification import confusion, expected_calibration_error, precision_recall_f1
from metacl.evaluation.methods import FROZEN, META_LEARNED, PRETRAINED, AdaptationMethod, Row, Scene
from metacl.evaluation.statistics import (
    Difference,
    Estimate,
    bootstrap_interval,
    mean_interval,
    paired_difference,
    spread,
)
from metacl.learners.token_count import TokenCount
from metacl.learners.transformer import TransformerLearner
from metacl.metagradients import InnerLoopDiverged
from metacl.tasks import Episode, EpisodeShape, TaskAddress

SAME_STEPS = "pretrained, same steps"
BEST_PRETRAINED = "pretrained, best row"
BEST_BASELINE = "best baseline"
SAME_START = "same start, 0 steps"
"""What a row can be compared with, besides the frozen prototypes."""


@dataclass(frozen=True)
class EpisodeScore:
    """One method's answers to one episode's query, and what it took to adapt.

    targets, predicted : Q class positions. confidences : the probability that each answer was given.
    tokens : that went through the model in those seconds (see `TokenCount`), frozen features counting as if they were
    computed then; None where inputs are no tokens. memory_bytes : see `metacl.evaluation.memory`; None where it was not
    measured.
    A method whose adaptation or scores stop being finite has `diverged`; its answers count as wrong.
    """

    row: Row
    targets: tuple[int, ...]
    predicted: tuple[int, ...]
    confidences: tuple[float, ...]
    seconds: float
    tokens: int | None = None
    memory_bytes: int | None = None

    @property
    def diverged(self) -> bool:
        """There are no answers."""
        return not self.predicted

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        right = sum(a == b for a, b in zip(self.targets, self.predicted, strict=False))
        return right / len(self.targets)


@dataclass(frozen=True)
class CompareMethods(Work[tuple[EpisodeScore, ...]]):
    """All methods on one episode, which is encoded once at most."""

    methods: tuple[AdaptationMethod, ...]
    shape: EpisodeShape

    def __call__(self, worker: Worker, address: TaskAddress, meta: Flat) -> tuple[EpisodeScore, ...]:
        """Scores in the order of the methods' rows."""
        episode = worker.source.episode(address, self.shape)
        labels = episode.query_labels if isinstance(episode, Episode) else episode.query[1].tolist()
        scene, targets = Scene(worker, meta, episode), tuple(labels)
        # What all methods share is no method's time, whoever asks first.
        reads = any(method.needs_features or method.reads_features for method in self.methods)
        if reads and worker.config.learner.has_features:
            scene.frozen.of(scene.support)
        if any(method.reads_batches for method in self.methods):
            _ = scene.task
        scores: list[EpisodeScore] = []
        for method in self.methods:
            found = {row: EpisodeScore(row, targets, (), (), 0.0) for row in method.rows()}
            with contextlib.suppress(InnerLoopDiverged):
                for score in _answers(method, scene, targets):
                    found[score.row] = score
            scores += found.values()
        return tuple(scores)


def _answers(method: AdaptationMethod, scene: Scene, targets: tuple[int, ...]) -> Iterator[EpisodeScore]:
    """Scores as the method goes on. What is timed is adapting, without answering."""
    method.prepare(scene)
    adapting, seconds, count = method.adapt(scene), 0.0, TokenCount()
    reads_tokens = isinstance(scene.worker.learner, TransformerLearner)
    while True:
        started = time.perf_counter()
        with count:
            found = next(adapting, None)
        seconds += time.perf_counter() - started
        if found is None:
            return
        row, predictor = found
        with torch.no_grad():
            scores = predictor(scene.query)
        if bool(torch.isfinite(scores).all()):
            confidences, predicted = scores.double().softmax(-1).max(-1)
            tokens = count.total if reads_tokens else None
            yield EpisodeScore(row, targets, tuple(predicted.tolist()), tuple(confidences.tolist()), seconds, tokens)


@dataclass(frozen=True)
class RowResult:
    """One line of the table. Accuracies and differences are fractions of 1; seconds are means per episode.

    tokens, memory_bytes : those of `EpisodeScore`, means over the episodes that have them (one a class split has the
    memory); None if none has.
    metrics : other figures, each a mean over episodes ("macro_f1", …; "calibration_error" over all answers).
    versus : paired differences, by what is compared with (`FROZEN`, `SAME_STEPS`, `BEST_PRETRAINED`, `SAME_START`);
    only those that make sense for the row.
    diverged : episodes on which the method's adaptation was not finite; they count as wrong.
    spread : standard deviation of the accuracies of several class splits; None for one.
    bootstrap : the accuracy's mean with the interval of 1,999 resamples of the episodes, beside that of Student's t.
    """

    method: str
    steps: int | None
    accuracy: Estimate
    metrics: dict[str, float]
    seconds: float
    tokens: float | None
    memory_bytes: float | None
    versus: dict[str, Difference]
    diverged: int
    spread: float | None
    bootstrap: Estimate


Scores = Mapping[TaskAddress, tuple[EpisodeScore, ...]]
"""What all methods said, by episode."""


def evaluate(
    executor: Executor,
    meta: Meta,
    methods: Sequence[AdaptationMethod],
    evaluation: Evaluation,
    on_episode: Callable[[int, int], None],
) -> Scores:
    """Run all methods on ``evaluation.episodes`` episodes.

    Parameters
    ----------
    on_episode : (done, of)
        Called as episodes finish.

    Returns
    -------
    dict
        The answers of every row, by episode, in the order of addresses.
    """
    work = CompareMethods(tuple(methods), evaluation.shape)
    addresses = [TaskAddress(evaluation.split, evaluation.seed, 0, index) for index in range(evaluation.episodes)]
    scores: dict[TaskAddress, tuple[EpisodeScore, ...]] = {}
    for done in executor.map(work, addresses, meta):
        scores[done.address] = done.result
        on_episode(len(scores), len(addresses))
    return {address: scores[address] for address in addresses}


def table(*splits: Scores) -> list[RowResult]:
    """A line for each row, with what it is compared to on the same episodes; over those of all class splits together.

    Parameters
    ----------
    splits : each split's answers, by the same rows
    """
    together = by_row(score for scores in splits for of_episode in scores.values() for score in of_episode)
    of_splits = [by_row(score for of_episode in scores.values() for score in of_episode) for scores in splits]
    accuracies = {row: [score.accuracy for score in of_row] for row, of_row in together.items()}
    return [
        RowResult(
            method=row.method,
            steps=row.steps,
            accuracy=mean_interval(accuracies[row]),
            metrics=_metrics(together[row]),
            seconds=sum(score.seconds for score in together[row]) / len(together[row]),
            tokens=_mean_of_known(score.tokens for score in together[row]),
            memory_bytes=_mean_of_known(score.memory_bytes for score in together[row]),
            versus={
                name: paired_difference(accuracies[row], accuracies[other])
                for name, other in _opponents(row, accuracies)
            },
            diverged=sum(score.diverged for score in together[row]),
            spread=_spread([split[row] for split in of_splits]),
            bootstrap=bootstrap_interval(accuracies[row], resamples=1999),
        )
        for row in together
    ]


def by_row(scores: Iterable[EpisodeScore]) -> dict[Row, list[EpisodeScore]]:
    """The scores of each row, in the order of the episodes."""
    found: dict[Row, list[EpisodeScore]] = {}
    for score in scores:
        found.setdefault(score.row, []).append(score)
    return found


def _mean_of_known(values: Iterable[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _spread(of_splits: Sequence[Sequence[EpisodeScore]]) -> float | None:
    if len(of_splits) < 2:
        return None
    return spread([float(np.mean([score.accuracy for score in scores])) for scores in of_splits])


def _metrics(scores: Sequence[EpisodeScore]) -> dict[str, float]:
    """Means over episodes, 0 where there are no answers; the calibration of all answers. Nothing if there are none."""
    answered = [score for score in scores if not score.diverged]
    if not answered:
        return {}
    figures = [(0.0, 0.0, 0.0)] * (len(scores) - len(answered))
    for score in answered:
        targets, predicted = np.array(score.targets), np.array(score.predicted)
        found = precision_recall_f1(
            confusion(targets, predicted, int(max(targets.max(), predicted.max())) + 1), "macro"
        )
        figures.append((found.precision, found.recall, found.f1))
    names = ("macro_precision", "macro_recall", "macro_f1")
    means = dict(zip(names, np.mean(figures, axis=0).tolist(), strict=True))
    confidences = np.concatenate([score.confidences for score in answered])
    right = np.concatenate([np.equal(score.targets, score.predicted) for score in answered])
    return {**means, "calibration_error": expected_calibration_error(confidences, right)}


def _opponents(row: Row, accuracies: dict[Row, list[float]]) -> list[tuple[str, Row]]:
    baselines = [other for other in accuracies if other.method != META_LEARNED]
    pretrained = [other for other in baselines if other.method == PRETRAINED]
    candidates = [
        (FROZEN, Row(FROZEN, None)),
        (SAME_STEPS, Row(PRETRAINED, row.steps)),
        (SAME_START, Row(row.method, 0)),
    ]
    if row.method == META_LEARNED:
        # The best on these very episodes: chosen in the baselines' favour.
        for name, others in ((BEST_PRETRAINED, pretrained), (BEST_BASELINE, baselines)):
            if others:
                candidates.append((name, max(others, key=lambda other: sum(accuracies[other]))))
    return [(name, other) for name, other in candidates if other in accuracies and other != row]


def as_dict(rows: Sequence[RowResult]) -> list[dict[str, Any]]:
    """The table as plain values, for results.json."""
    return [asdict(row) for row in rows]
