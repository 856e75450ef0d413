"""Adversarial hardening: the loss on features moved against the model, beside the plain one (FGM and PGD)."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from metacl.continual.experience import Stream
from metacl.continual.model import Model
from metacl.continual.moment import Moment
from metacl.continual.pool import Minibatch
from metacl.continual.strategies.base import STRATEGIES, State, Strategy
from metacl.continual.strategies.lwf import needs_classes
from metacl.continual.strategies.start_features import needs_features
from metacl.learners.base import Params
from metacl.objectives.adversarial import Adversarial


@STRATEGIES.register("hardening")
class Hardening(Strategy):
    """Adds weight · the loss on disturbed feature vectors, over all classes; see the meta-objective `adversarial`.

    radius : Euclidean, of the disturbance. steps : 1 is FGM, more are PGD.
    """

    radius: PositiveFloat = 0.1
    steps: PositiveInt = 1
    weight: NonNegativeFloat = 1.0

    def check(self, model: Model, stream: Stream) -> None:
        """Feature vectors of classes."""
        needs_features("hardening", model)
        needs_classes("hardening", model)

    def penalty(
        self, moment: Moment, params: Params, minibatch: Minibatch, outputs: Tensor, state: State
    ) -> Tensor | None:
        """Of the batch, replayed examples included."""
        made = Adversarial(radius=self.radius, steps=self.steps)
        return self.weight * made.disturbed_loss(moment.model.learner, moment.model.bind(params), minibatch.batch)
