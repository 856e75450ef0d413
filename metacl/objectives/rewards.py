"""Rewards of answers, as a config names them. One of your own is a class, registered with ``@REWARDS.register``."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from metacl.errors import ConfigError
from metacl.learners.base import Batch
from metacl.learners.samples import Samples
from metacl.registry import Component, Registry


class Reward(Component):
    """What an answer is worth. It is never differentiated, so it may call anything, but it must not be random."""

    @abstractmethod
    def of(self, batch: Batch, samples: Samples) -> Tensor:
        """Of each answer, (B, G), or of each of its actions, (B, G, L); `batch.targets` may say what is right."""


REWARDS: Registry[Reward] = Registry("reward", "objective.reward")


@REWARDS.register("match")
class Match(Reward):
    """One for the action that is the target, nothing for any other: a bandit that hides which arm is good."""

    def of(self, batch: Batch, samples: Samples) -> Tensor:
        """0 or 1, (B, G)."""
        assert batch.targets is not None
        return (samples.actions[..., 0] == batch.targets.unsqueeze(-1)).double()


@REWARDS.register("contains")
class Contains(Reward):
    """One for a completion in which the reference occurs: what the prompt's own text goes on with."""

    def of(self, batch: Batch, samples: Samples) -> Tensor:
        """0 or 1, (B, G). Raises `ConfigError` where answers are no text."""
        if samples.texts is None or samples.references is None:
            raise ConfigError("objective.reward: contains reads answers as text. Set learner=causal_lm.")
        found = [
            [reference.strip() in text for text in texts]
            for texts, reference in zip(samples.texts, samples.references, strict=True)
        ]
        return torch.tensor(found, dtype=torch.float64, device=samples.actions.device)
