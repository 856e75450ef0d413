"""What a language model knows of a domain after k inner steps on a few of its texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from metacl.coordination.executor import Executor
from metacl.coordination.flat import Flat
from metacl.coordination.worker import TaskFailed, Work, Worker
from metacl.evaluation.methods import META_LEARNED, PRETRAINED
from metacl.evaluation.statistics import Estimate, mean_interval, paired_difference
from metacl.evaluation.walk import bound_after
from metacl.metagradients import InnerLoopDiverged
from metacl.tasks import EpisodeShape, TaskAddress


@dataclass(frozen=True)
class PerplexityAfter(Work[dict[int, float]]):
    """The mean query loss, which is the log of the perplexity, after each number of inner steps in `steps`."""

    steps: tuple[int, ...]
    shape: EpisodeShape

    def __call__(self, worker: Worker, address: TaskAddress, meta: Flat) -> dict[int, float]:
        """Steps -> nats per token. Raises `TaskFailed` if the inner loop diverges."""
        learner, task = worker.learner, worker.learner.prepare(worker.source.episode(address, self.shape))
        found = {}
        try:
            for step, bound in bound_after(learner, worker.config, worker.parameters(meta), task, set(self.steps)):
                with torch.no_grad():  # the learner's loss: what the objective asks may be a reward
                    found[step] = float(learner.loss(bound, task.query))
        except InnerLoopDiverged as error:
            raise TaskFailed(str(error)) from None
        return found


@dataclass(frozen=True)
class PerplexityRow:
    """One line of the table. log_perplexity : mean over tasks, in nats per token.

    gain : the row compared with less this one, paired by task, in nats per token; above 0 is better. Compared with the
    pretrained start after as many steps, or, for the pretrained rows, with the start before any.
    """

    method: str
    steps: int
    log_perplexity: Estimate
    gain: Estimate | None


def perplexity_rows(
    executor: Executor,
    starts: Mapping[str, Flat],
    addresses: Sequence[TaskAddress],
    shape: EpisodeShape,
    steps: Sequence[int],
) -> list[PerplexityRow]:
    """The pretrained start against the meta-learned one, after each number of steps, on the same tasks.

    Parameters
    ----------
    starts : dict
        `PRETRAINED` and `META_LEARNED` -> meta-parameters.
    """
    logs: dict[tuple[str, int], list[float]] = {}
    for method, meta in starts.items():
        found = log_perplexities(executor, meta, addresses, shape, sorted({0, *steps}))
        for step in sorted({0, *steps}):
            logs[method, step] = [found[address][step] for address in addresses]
    return [
        PerplexityRow(
            method,
            step,
            mean_interval(values),
            None if (method, step) == (PRETRAINED, 0) else paired_difference(logs[_opponent(method, step)], values),
        )
        for (method, step), values in logs.items()
    ]


def _opponent(method: str, step: int) -> tuple[str, int]:
    return (PRETRAINED, step) if method == META_LEARNED else (PRETRAINED, 0)


def log_perplexities(
    executor: Executor, meta: Flat, addresses: Sequence[TaskAddress], shape: EpisodeShape, steps: Sequence[int]
) -> dict[TaskAddress, dict[int, float]]:
    """Nats per token on the query texts of each task, after each number of inner steps on its support texts."""
    work = PerplexityAfter(tuple(steps), shape)
    found = {done.address: done.result for done in executor.map(work, addresses, meta)}
    return {address: found[address] for address in addresses}
