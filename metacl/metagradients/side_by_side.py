"""Several tasks in one forward: one problem whose tensors have the task as their first dimension.

Its losses are sums over the tasks, and no task's loss depends on another's parameters, so the gradient of the sum is
the tasks' own gradients, to any order. `torch.vmap` runs the model with per-task parameters over the shared frozen
base. It pays where calls cost more than arithmetic (small modules) and multiplies the memory of one task by their
number, not by the inner steps. A compiled estimator compiles for every number of tasks that go together.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from metacl.adaptation import State
from metacl.errors import ConfigError
from metacl.learners.base import Params
from metacl.metagradients.base import InnerProblem, MetaGradient, MetaGradientResult


def estimate_side_by_side(estimator: MetaGradient, problems: Sequence[InnerProblem]) -> list[MetaGradientResult]:
    """g of every task, in order, as `estimator.estimate` gives it but for rounding.

    Tasks whose tensors have the same shapes go together; one whose shapes are its own goes alone. The losses reported
    of tasks that went together are their means.

    Raises
    ------
    InnerLoopDiverged
        For one of the tasks, without saying for which.
    ConfigError
        The estimator goes task by task, or the model has an operation that `torch.vmap` does not know.
    """
    if not estimator.side_by_side:
        raise ConfigError(
            f"estimator: {estimator.registered_name or type(estimator).__name__} goes task by task. "
            f"Set estimator=reverse, or workers.tasks_per_forward=1."
        )
    alike: dict[Hashable, list[int]] = {}
    for place, problem in enumerate(problems):
        alone = problem.traced is None or problem.along is not None or problem.ascending
        key = place if alone else tuple((tensor.shape, tensor.dtype) for tensor in problem.data)
        alike.setdefault((id(problem.traced), key), []).append(place)
    results: dict[int, MetaGradientResult] = {}
    for places in alike.values():
        together = [problems[place] for place in places]
        found = [estimator.estimate(together[0])] if len(together) == 1 else _together(estimator, together)
        results.update(zip(places, found, strict=True))
    return [results[place] for place in range(len(problems))]


@dataclass
class _Stacked(InnerProblem):
    """T tasks as one problem."""

    def displacement(
        self, theta: Params, grads: Params, state: State, start: Params, step: int
    ) -> tuple[Params, State]:
        """Task by task: step sizes and preconditioners are each task's own copy of φ."""

        def one(meta: Params, theta: Params, grads: Params, state: State, start: Params) -> tuple[Params, State]:
            alone = InnerProblem(meta, self.start, self.support_loss, self.query_loss, self.loop)
            return alone.displacement(theta, grads, state, start, step)

        return torch.vmap(one)(self.meta, theta, grads, state, start)


def _together(estimator: MetaGradient, problems: Sequence[InnerProblem]) -> list[MetaGradientResult]:
    first, count = problems[0], len(problems)
    assert first.traced is not None
    functions = first.traced.stacked
    data = tuple(torch.stack(tensors) for tensors in zip(*(problem.data for problem in problems), strict=True))
    stacked = _Stacked(
        meta={name: torch.stack([tensor.detach()] * count).requires_grad_() for name, tensor in first.meta.items()},
        start=lambda phi: functions.start(phi, data),
        support_loss=lambda theta, phi, _step: functions.support_loss(theta, phi, data),
        query_loss=lambda theta, phi: functions.query_loss(theta, phi, data),
        loop=first.loop,
        traced=functions,
        data=data,
    )
    try:
        result = estimator.estimate(stacked)
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        raise ConfigError(
            f"workers.tasks_per_forward: the model cannot run several tasks at once "
            f"({str(error).strip().splitlines()[0]}). Set workers.tasks_per_forward=1; a text encoder may also be able "
            f"to with learner.padding=packed, where it makes no masks of its own."
        ) from None
    return [
        MetaGradientResult(
            {name: gradient[task] for name, gradient in result.gradient.items()},
            result.query_loss / count,
            [loss / count for loss in result.support_losses],
        )
        for task in range(count)
    ]
