"""What a language model knows of a domain after k inner steps on a few of its texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from metacl.coordination.executor import Executor
from metacl.coordination.flat import Flat
from metacl.coordination.worker import Work, Worker
from metacl.evaluation.methods import META_LEARNED, PRETRAINED
from metacl.evaluation.statistics import Estimate, mean_interval, paired_difference
from metacl.metagradients import plain_gradient, trajectory
from metacl.tasks import EpisodeShape, TaskAddress


@dataclass(frozen=True)
class PerplexityAfter(Work[dict[int, float]]):
    """exp of the mean query loss after each number of inner steps in `steps`."""

    steps: tuple[int, ...]
    shape: EpisodeShape

    def __call__(self, worker: Worker, address: TaskAddress, meta: Flat) -> dict[int, float]:
        """Steps -> perplexity."""
        config = worker.config
        task = worker.learner.prepare(worker.source.episode(address, self.shape))
        params = worker.parameters(meta)
        loop = config.inner.model_copy(update={"steps": max(self.steps)})
        problem = config.objective.problem(worker.learner, params, task, loop)
        found = {}
        with torch.no_grad():
            for step, state in enumerate(trajectory(problem, plain_gradient(problem), problem.start(params))):
                if step in self.steps:
                    found[step] = math.exp(float(problem.query_loss(state.theta, params)))
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
        found = perplexities(executor, meta, addresses, shape, sorted({0, *steps}))
        for step in sorted({0, *steps}):
            logs[method, step] = [math.log(found[address][step]) for address in addresses]
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


def perplexities(
    executor: Executor, meta: Flat, addresses: Sequence[TaskAddress], shape: EpisodeShape, steps: Sequence[int]
) -> dict[TaskAddress, dict[int, float]]:
    """Perplexity on the query texts of each task, after each number of inner steps on its support texts."""
    work = PerplexityAfter(tuple(steps), shape)
    found = {done.address: done.result for done in executor.map(work, addresses, meta)}
    return {address: found[address] for address in addresses}
