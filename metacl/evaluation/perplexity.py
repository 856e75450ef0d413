"""What a language model knows of a domain after k inner steps on a few of its texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from metacl.coordination.executor import Executor
from metacl.coordination.flat import Flat
from metacl.coordination.worker import Work, Worker
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


def perplexities(
    executor: Executor, meta: Flat, addresses: Sequence[TaskAddress], shape: EpisodeShape, steps: Sequence[int]
) -> dict[TaskAddress, dict[int, float]]:
    """Perplexity on the query texts of each task, after each number of inner steps on its support texts."""
    work = PerplexityAfter(tuple(steps), shape)
    found = {done.address: done.result for done in executor.map(work, addresses, meta)}
    return {address: found[address] for address in addresses}
