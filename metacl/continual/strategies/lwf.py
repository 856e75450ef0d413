"""Learning without forgetting: answer new examples as before on the old classes (Li & Hoiem 2017, eq. 2 and 3)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from metacl.continual.experience import Stream
from metacl.continual.model import Model, kl_divergence
from metacl.continual.moment import Moment
from metacl.continual.pool import Minibatch
from metacl.continual.strategies.base import STRATEGIES, State, Strategy, held, under
from metacl.errors import ConfigError
from metacl.learners.base import Params


@STRATEGIES.register("lwf")
class LearningWithoutForgetting(Strategy):
    """Adds alpha · KL between the answers of the model before this experience and now, over the classes seen before it.

    Mean over the examples of the batch, both softened by `temperature` T. divergence : KL(teacher ‖ student), as in the
    paper ("forward"), or KL(student ‖ teacher) ("reverse"). t_squared : multiply by T², which keeps the size of the
    gradient when T changes (Hinton et al. 2015, sec. 2); Avalanche does not.
    """

    alpha: NonNegativeFloat = 1.0
    temperature: PositiveFloat = 2.0
    divergence: Literal["forward", "reverse"] = "forward"
    t_squared: bool = False

    def check(self, model: Model, stream: Stream) -> None:
        """Answers are classes."""
        needs_classes("lwf", model)

    def begin(self, moment: Moment, params: Params, state: State) -> tuple[Params, State]:
        """The teacher is the model as the experience finds it."""
        return params, under("teacher", params) if moment.experience else {}

    def penalty(
        self, moment: Moment, params: Params, minibatch: Minibatch, outputs: Tensor, state: State
    ) -> Tensor | None:
        """Nothing in the first experience."""
        teacher = held(state, "teacher")
        if not teacher:
            return None
        with torch.no_grad():
            before = moment.model.outputs(teacher, minibatch.batch)[:, moment.seen]
        pair = (before, outputs[:, moment.seen])
        kl = kl_divergence(*(pair if self.divergence == "forward" else pair[::-1]), self.temperature)
        return self.alpha * (self.temperature**2 if self.t_squared else 1.0) * kl


def needs_classes(name: str, model: Model) -> None:
    """Raises `ConfigError` for a language model."""
    if not model.classes:
        raise ConfigError(f"strategies: {name} compares class scores, and a language model has none. Leave it out.")
