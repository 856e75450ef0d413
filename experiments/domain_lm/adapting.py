"""Perplexity of held-out domains after k inner steps, from a start, at a step size."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from metacl.adaptation import InnerLoop
from metacl.config import RunConfig
from metacl.learners.base import STEP_SIZE, Learner, Params
from metacl.metagradients import InnerLoopDiverged, plain_gradient, trajectory
from metacl.tasks import TaskAddress
from metacl.tasks.domain_source import DomainEpisodes
from metacl.tasks.episode import EpisodeShape, Split

STEPS = (0, 1, 5, 10, 50)


def addresses(source: DomainEpisodes, split: Split, shape: EpisodeShape, each: int) -> dict[str, list[TaskAddress]]:
    """Domain -> the first `each` tasks of seed 1 that are of that domain."""
    found: dict[str, list[TaskAddress]] = {name: [] for name in source.documents[split]}
    index = 0
    while any(len(tasks) < each for tasks in found.values()):
        address = TaskAddress(split, 1, 0, index)
        (domain,) = source.episode(address, shape).class_names
        if len(found[domain]) < each:
            found[domain].append(address)
        index += 1
    return found


def scaled(meta: Params, factor: float) -> Params:
    """The same with all learned step sizes times `factor`."""
    return {name: factor * tensor if name.startswith(STEP_SIZE) else tensor for name, tensor in meta.items()}


def log_perplexities(
    config: RunConfig,
    learner: Learner,
    source: DomainEpisodes,
    meta: Params,
    loop: InnerLoop,
    shape: EpisodeShape,
    tasks: Sequence[TaskAddress],
    steps: Sequence[int] = STEPS,
) -> list[list[float]]:
    """For each task the nats per token of its query after each of `steps`; infinite once the inner loop diverges."""
    loop = loop.model_copy(update={"steps": max(steps)})
    found = []
    for address in tasks:
        task = learner.prepare(source.episode(address, shape))
        problem = config.objective.problem(learner, meta, task, loop)
        losses: list[float] = []
        with torch.no_grad():
            try:
                for step, state in enumerate(trajectory(problem, plain_gradient(problem), problem.start(meta))):
                    if step in steps:
                        losses.append(float(problem.query_loss(state.theta, meta)))
            except InnerLoopDiverged:
                pass
        found.append(losses + [float("inf")] * (len(steps) - len(losses)))
    return found
