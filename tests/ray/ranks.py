"""Two ranks to compute on, and what several tests let them compute: the meta-gradient of one task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metacl.adaptation import InnerLoop
from metacl.coordination.ray_group import GroupRank
from metacl.learners import Task
from metacl.learners.base import Learner, as_leaves
from metacl.learners.engine import Engine
from metacl.metagradients import MetaGradient
from metacl.objectives import MetaObjective

SUPPORT = (
    ("hi", "where is my card", "I would like to know why my transfer has not arrived yet", "pin?", "my card is lost"),
    (0, 1, 2, 0, 1),
)
QUERY = (("where is it", "transfer", "hello there my friend"), (1, 2, 0))
"""Odd counts and different lengths, so that nothing divides evenly."""


class Rank:
    """An actor that calls functions with an engine of its place in the group."""

    def __init__(self, rank: int, size: int) -> None:
        torch.set_num_threads(1)
        self.rank, self.size = rank, size

    place = GroupRank.place

    def join(self, place: tuple[str, int, str]) -> None:
        from metacl.learners.sharding import RankEnvironment

        self.environment = RankEnvironment(self.rank, self.size, *place[:2])
        self.engine(0)

    def engine(self, stage: int, offload: str = "none") -> Engine:
        from metacl.learners.sharding import ZeroOptions, make_engine

        # Tiny matrices, too, are to be sharded.
        extra = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
        return make_engine(ZeroOptions(stage, offload, extra=extra), self.environment, gpu=False)

    def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return function(self, *arguments, **options)


class Ranks:
    """Both actors as one."""

    def __init__(self, actors: list[Any]) -> None:
        self._actors = actors

    def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
        """``function(rank, *arguments, **options)`` on each rank, at once."""
        import ray

        return ray.get([actor.call.remote(function, *arguments, **options) for actor in self._actors])


def meta_gradient(
    learner: Learner, objective: MetaObjective, estimator: MetaGradient, loop: InnerLoop, ways: int = 3
) -> dict[str, Tensor]:
    """g for one task, from a start where no factor of an adapter is zero."""
    generator = torch.Generator().manual_seed(0)
    meta = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator) if tensor.dim() == 2 else tensor
        for name, tensor in objective.meta_parameters(learner, loop, ways).items()
    }
    task = Task(ways, learner.encode(*SUPPORT), learner.encode(*QUERY))
    return estimator.estimate(objective.problem(learner, as_leaves(meta), task, loop)).gradient


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """‖found − expected‖ / ‖expected‖, all tensors together."""
    assert found.keys() == expected.keys()
    a, b = (torch.cat([params[name].double().flatten() for name in expected]) for params in (found, expected))
    return float((a - b).norm() / b.norm())
