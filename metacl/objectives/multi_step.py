"""Multi-step loss (Antoniou et al. 2019, "How to train your MAML", sec. 4): the query is asked after every step.

The weights follow the authors' code: all K steps start with 1/K; over `anneal_steps` outer steps those before the last
fall linearly to 0.03/K, and the last takes what they give up.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from metacl.adaptation import InnerLoop
from metacl.learners.base import Learner, Params, Task
from metacl.metagradients import InnerProblem
from metacl.objectives.base import OBJECTIVES
from metacl.objectives.wrapper import Wrapper

LEAST = 0.03
"""What is left of an early step's weight in the end, relative to 1/K."""


@OBJECTIVES.register("multi_step")
class MultiStep(Wrapper):
    """Asks the query after every inner step, the last ever more; a stabler start of training (MAML++)."""

    asks_along: ClassVar[bool] = True

    anneal_steps: PositiveInt = 7500

    def weights(self, steps: int, outer_step: int) -> list[float]:
        """Of the query losses after steps 1 … K; they add up to 1."""
        if steps == 0:
            return []
        early = max(1 - outer_step / self.anneal_steps, LEAST) / steps
        return [early] * (steps - 1) + [1 - early * (steps - 1)]

    def problem(self, learner: Learner, meta: Params, task: Task, loop: InnerLoop) -> InnerProblem:
        """`of`'s, with the query loss shared out over the steps."""
        plain = self.of.problem(learner, meta, task, loop)
        weights = [0.0, *self.weights(loop.steps, plain.outer_step)] if loop.steps else [1.0]

        def along(theta: Params, phi: Params, k: int) -> Tensor | None:
            asked = [] if plain.along is None else [plain.along(theta, phi, k)]
            asked += [weights[k] * plain.query_loss(theta, phi)] if weights[k] else []
            there = [loss for loss in asked if loss is not None]
            return torch.stack(there).sum() if there else None

        return replace(
            plain, along=along, query_loss=lambda theta, phi: weights[-1] * plain.query_loss(theta, phi)
        )
