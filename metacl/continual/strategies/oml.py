"""OML along a stream (Javed & White 2019, "Meta-Learning Representations for Continual Learning", algorithm 1).

The head (the paper's prediction network) learns a batch one example after another; asked afterwards are these examples
and a sample of the memory, and of that the features (the representation network) and the head's start take a step: the
features become such that what a head learns from them one example at a time interferes little. As a meta-objective of
`metacl train` it learns a start before the stream; here it learns along it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import PositiveFloat

from metacl.adaptation.inner_loop import StepSizes
from metacl.continual.experience import Stream
from metacl.continual.model import Model
from metacl.continual.moment import Moment
from metacl.continual.pool import Minibatch
from metacl.continual.strategies.base import STRATEGIES, State
from metacl.continual.strategies.look_ahead import LookAhead
from metacl.errors import ConfigError
from metacl.learners.base import HEAD, Params
from metacl.metagradients import ESTIMATORS, MetaGradient
from metacl.registry import chosen_from


@STRATEGIES.register("oml")
class OnlineAwareMetaLearning(LookAhead):
    """Inner steps of the head alone; all parameters take a step of what they lead to.

    step_size : of the head's inner steps; the training's learning rate is that of the step afterwards.
    """

    step_size: PositiveFloat = 0.1
    estimator: Annotated[MetaGradient, chosen_from(ESTIMATORS)] = ESTIMATORS.build({"name": "reverse"})

    def check(self, model: Model, stream: Stream) -> None:
        """There must be a head."""
        if not self.adapting(model.start()):
            raise ConfigError(
                "strategies: oml adapts a head in its inner steps, and this learner has none. Name the module's head "
                "(ModuleLearner's head=…), or take la_maml."
            )

    def adapting(self, params: Params) -> list[str]:
        """The head."""
        return [name for name in params if name.startswith(HEAD)]

    @property
    def step_sizes(self) -> StepSizes:
        """One, which is not learned."""
        return StepSizes(head=self.step_size, learn="none")

    def loss_gradient(self, moment: Moment, params: Params, minibatch: Minibatch, state: State) -> tuple[Params, State]:
        """Of all parameters."""
        return self.ahead(moment, params, {}, minibatch, state), self.remembering(moment, minibatch, state)
