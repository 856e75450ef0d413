"""A run's own inner loop, stopped after each number of steps that is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch

from metacl.config import RunConfig
from metacl.learners.base import Learner, Params, Task
from metacl.metagradients import plain_gradient, trajectory


def bound_after(
    learner: Learner, config: RunConfig, params: Params, task: Task, steps: Collection[int]
) -> Iterator[tuple[int, Params]]:
    """The learner's parameters after each number of inner steps in `steps`, by the objective and loop of `config`.

    Parameters
    ----------
    params : the meta-parameters to begin from
    task : its support is adapted to

    Raises `InnerLoopDiverged` where numbers stop being finite.
    """
    loop = config.inner.model_copy(update={"steps": max(steps)})
    problem = config.objective.problem(learner, params, task, loop)
    with torch.no_grad():
        theta = problem.start(params)
    for step, state in enumerate(trajectory(problem, plain_gradient(problem), theta)):
        if step in steps:
            with torch.no_grad():
                bound = config.objective.bind(state.theta, params)
            yield step, bound
