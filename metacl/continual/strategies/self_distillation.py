"""Distillation from a slow copy of the model itself (Tarvainen & Valpola 2017, "Mean Teachers", sec. 2).

Unlike `lwf`, the teacher goes along, over the borders of experiences, and needs to know of none.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from metacl.continual.experience import Stream
from metacl.continual.model import HEAD_BIAS, HEAD_WEIGHT, Model, kl_divergence
from metacl.continual.moment import Moment
from metacl.continual.pool import Minibatch
from metacl.continual.strategies.base import STRATEGIES, State, Strategy, held, under
from metacl.continual.strategies.lwf import needs_classes
from metacl.learners.base import Params


@STRATEGIES.register("self_distillation")
class SelfDistillation(Strategy):
    """Adds weight · T² · KL(teacher ‖ model) over all classes; teacher ← decay · teacher + (1 − decay) · model."""

    weight: NonNegativeFloat = 1.0
    temperature: PositiveFloat = 1.0
    decay: Annotated[float, Field(ge=0, le=1)] = 0.99

    def check(self, model: Model, stream: Stream) -> None:
        """Answers are classes."""
        needs_classes("self_distillation", model)

    def begin(self, moment: Moment, params: Params, state: State) -> tuple[Params, State]:
        """The first teacher is the start; of classes that are new it knows what the model does."""
        slow = held(state, "teacher") or dict(params)
        if moment.model.has_own_head and moment.new:
            for name in (HEAD_WEIGHT, HEAD_BIAS):
                slow[name] = slow[name].clone()
                slow[name][moment.new] = params[name][moment.new]
        return params, under("teacher", slow)

    def penalty(
        self, moment: Moment, params: Params, minibatch: Minibatch, outputs: Tensor, state: State
    ) -> Tensor | None:
        """On the examples of the batch."""
        with torch.no_grad():
            slow = moment.model.outputs(held(state, "teacher"), minibatch.batch)
        return self.weight * self.temperature**2 * kl_divergence(slow, outputs, self.temperature)

    def settle(
        self, moment: Moment, before: Params, after: Params, task_gradient: Params, rates: Params, state: State
    ) -> tuple[Params, State]:
        """The teacher follows."""
        slow = held(state, "teacher")
        return after, under("teacher", {n: self.decay * slow[n] + (1 - self.decay) * after[n] for n in after})
