"""A point that must find a goal it is not told (after Finn et al. 2017, sec. 5.3, "2D navigation"): a plugin.

The point starts at the origin and makes L moves of its own choice; after every move its reward is minus the distance to
the goal. The policy sees where the point is and never the goal, so only rewards tell one task from another. The goal
lies in [−0.5, 0.5]². A task's input is the starting point, its target the goal, which the reward alone reads.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from metacl.learners import LEARNERS, Batch, ModuleLearner, Params, Samples
from metacl.learners.base import CPU
from metacl.learners.engine import Engine
from metacl.learners.networks import ModuleConfig
from metacl.objectives import REWARDS, Reward
from metacl.tasks import TASK_SOURCES, ArrayEpisode, EpisodeShape, Split, TaskAddress, TaskSource
from metacl.tasks.randomness import AddressedRandom


@TASK_SOURCES.register("goals")
class Goals(TaskSource):
    """Goals uniform in [−0.5, 0.5]², one a task."""

    gives: ClassVar[Literal["text", "arrays"]] = "arrays"
    classes: ClassVar[bool] = False

    def open(self) -> GoalEpisodes:
        """Nothing to read."""
        return GoalEpisodes()


class GoalEpisodes:
    """See `Goals`."""

    def check(self, split: Split, shape: EpisodeShape) -> None:
        """Any can be drawn."""

    def episode(self, address: TaskAddress, shape: EpisodeShape) -> ArrayEpisode:
        """One start (1, 2) and one goal (1, 2), the same in support and query."""
        random = AddressedRandom(address)
        goal = np.array([[random.uniform(-0.5, 0.5), random.uniform(-0.5, 0.5)]])
        return ArrayEpisode(address, 0, (np.zeros((1, 2)), goal), (np.zeros((1, 2)), goal))

    def describe(self) -> str:
        """In words."""
        return "goals uniform in [−0.5, 0.5]², seen by the reward alone"


@LEARNERS.register("point_policy")
class PointPolicy(ModuleConfig):
    """A Gaussian policy over moves in the plane; its mean is an MLP of the position, its width is fixed."""

    hidden: PositiveInt = 32
    moves: PositiveInt = 10
    width: PositiveFloat = 0.05

    def network(self) -> nn.Module:
        """Position (…, 2) to mean move (…, 2)."""
        layers = nn.Linear(2, self.hidden), nn.Tanh(), nn.Linear(self.hidden, self.hidden), nn.Tanh()
        return nn.Sequential(*layers, nn.Linear(self.hidden, 2))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """There are no targets to compare with."""
        raise NotImplementedError("a policy has no loss but that of its rewards")

    def build(self, seed: int, device: torch.device = CPU, engine: Engine | None = None) -> Policy:
        """Make the network."""
        plain = super().build(seed, device, engine)
        assert plain.module is not None
        return Policy(plain.module, self)


class Policy(ModuleLearner):
    """See `PointPolicy`. An answer is L moves; positions follow from the moves."""

    def __init__(self, module: nn.Module, config: PointPolicy) -> None:
        super().__init__(module, config.loss)
        self.config = config

    def sample(self, params: Params, batch: Batch, count: int, seed: int) -> Samples:
        """(B, G, L, 2) moves."""
        generator = torch.Generator().manual_seed(seed)
        start = batch.input
        noise = torch.randn(self.config.moves, len(start), count, 2, generator=generator).to(start)
        position = start.unsqueeze(1).expand(-1, count, -1)
        moves = []
        for step in noise:
            moves.append(self.mean(params, position) + self.config.width * step)
            position = position + moves[-1]
        actions = torch.stack(moves, 2)
        return Samples(actions, torch.ones(actions.shape[:3]))

    def log_probabilities(self, params: Params, batch: Batch, samples: Samples) -> Tensor:
        """Gaussian, (B, G, L)."""
        before = batch.input[:, None, None] + samples.actions.cumsum(2) - samples.actions
        off = (samples.actions - self.mean(params, before)) / self.config.width
        return -0.5 * off.square().sum(-1)  # up to a constant

    def mean(self, params: Params, positions: Tensor) -> Tensor:
        """The mean move at each position (…, 2), at most 0.1 each way."""
        flat = self.outputs(params, Batch.single(positions.reshape(-1, 2), None))
        return 0.1 * torch.tanh(flat).view(positions.shape)


@REWARDS.register("nearness")
class Nearness(Reward):
    """Minus the distance to the goal after every move."""

    def of(self, batch: Batch, samples: Samples) -> Tensor:
        """(B, G, L)."""
        assert batch.targets is not None
        positions = batch.input[:, None, None] + samples.actions.cumsum(2)
        return -(positions - batch.targets[:, None, None]).norm(dim=-1)
