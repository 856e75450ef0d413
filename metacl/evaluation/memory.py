"""The memory that each method takes to adapt, on one episode that is gone through once more for it.

Seconds are not taken of it: watching every operation slows it down.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch

from metacl.config import Evaluation
from metacl.coordination.executor import Executor
from metacl.coordination.flat import Flat
from metacl.coordination.worker import Meta, Work, Worker
from metacl.evaluation.few_shot import Scores
from metacl.evaluation.methods import AdaptationMethod, Predictor, Row, Scene
from metacl.learners.label_words import LabelWords
from metacl.learners.live_memory import LiveMemory
from metacl.metagradients import InnerLoopDiverged
from metacl.tasks import EpisodeShape, TaskAddress


def with_memory(
    executor: Executor, meta: Meta, methods: Sequence[AdaptationMethod], evaluation: Evaluation, scores: Scores
) -> Scores:
    """The scores with `memory_bytes` in those of the first episode.

    Parameters
    ----------
    methods, evaluation, scores : what `evaluate` was given, and what it returned
    """
    first = next(iter(scores))
    (done,) = executor.map(MeasureMemory(tuple(methods), evaluation.shape), [first], meta)
    found = dict(done.result)
    return {**scores, first: tuple(replace(score, memory_bytes=found.get(score.row)) for score in scores[first])}


@dataclass(frozen=True)
class MeasureMemory(Work[tuple[tuple[Row, int], ...]]):
    """For each row that does not diverge the most bytes that tensors take at one time until it is adapted, on one rank.

    What is there before does not count: the model, what was learned, the query as the model reads it, and what serves
    other episodes, too (`AdaptationMethod.prepare`). All that is made of the support does, its frozen features
    included, which are not taken from memory here. On a GPU as its allocator counts; on a CPU the storages of tensors
    (`LiveMemory`), not what kernels and other libraries take.
    """

    methods: tuple[AdaptationMethod, ...]
    shape: EpisodeShape

    def __call__(self, worker: Worker, address: TaskAddress, meta: Flat) -> tuple[tuple[Row, int], ...]:
        """Rows with their bytes."""
        episode = worker.source.episode(address, self.shape)
        found: list[tuple[Row, int]] = []
        for method in self.methods:
            scene = Scene(worker, meta, episode)
            method.prepare(scene)
            scene.forget_features()
            if method.reads_batches and not isinstance(worker.learner, LabelWords):
                _ = scene.query.batch
            with contextlib.suppress(InnerLoopDiverged), peak_memory(worker.learner.device) as memory:
                adapting = method.adapt(scene)
                while (row := _next_row(adapting)) is not None:
                    found.append((row, memory.peak))
        return tuple(found)


def _next_row(adapting: Iterator[tuple[Row, Predictor]]) -> Row | None:
    """Without the predictor, which would keep its parameters while others are made."""
    row, _ = next(adapting, (None, None))
    return row


def peak_memory(device: torch.device) -> LiveMemory | _Allocated:
    """A context in which `peak` says the most bytes so far of tensors on a device, above what there was before."""
    return _Allocated(device) if device.type == "cuda" else LiveMemory()


class _Allocated:
    """By the statistics of CUDA's caching allocator."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0

    def __enter__(self) -> Self:
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)
        return self

    def __exit__(self, *raised: object) -> None:
        return None

    @property
    def peak(self) -> int:
        """Bytes."""
        return torch.cuda.max_memory_allocated(self._device) - self._before
