"""What strategies share that look ahead: they learn a batch one example after another, and descend what that leads to.

From θ, inner steps go through the new examples in their order; asked afterwards are these, what other strategies replay
beside them, and a sample of a reservoir of everything that came before. The gradient of that in θ, and in the inner
step sizes, is an estimator's of `metacl.metagradients`, and takes the place of the mean loss's.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Self

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor

from metacl.adaptation import InnerLoop
from metacl.adaptation.inner_loop import StepSizes
from metacl.continual.memory import reservoir
from metacl.continual.moment import Moment
from metacl.continual.pool import Minibatch
from metacl.continual.strategies.base import MEMORY, State, Strategy, as_memory, stored
from metacl.continual.strategies.replay import OFFERED, drawn, offered
from metacl.errors import TrainingError
from metacl.learners.base import Params, as_leaves
from metacl.metagradients import ESTIMATORS, InnerProblem, MetaGradient
from metacl.metagradients.base import InnerLoopDiverged

UNFIT = ("reptile", "implicit", "annealed_order")
"""Estimators that ask no query, want a proximal inner loop, or go by the outer step."""


class LookAhead(Strategy):
    """Options and the meta-gradient. A subclass says what adapts in the inner steps, and by which step sizes.

    memory : examples stored, a uniform sample of what was learned so far (reservoir); each is offered as it comes.
    replay : of these asked at a step; null for as many as there are new ones. arrive : new examples in an inner step.
    """

    memory: PositiveInt = 200
    replay: PositiveInt | None = None
    arrive: PositiveInt = 1
    estimator: MetaGradient

    @model_validator(mode="after")
    def _estimator_asks_what_comes_after(self) -> Self:
        """Of a stream's step there is no outer step, nothing to compile for, and the query must be asked."""
        name = self.estimator.registered_name
        if name in UNFIT or self.estimator.wants_few_shapes:
            fit = [known for known in ESTIMATORS.names() if known not in UNFIT]
            raise ValueError(
                f"estimator: {name}{' compiled' if name not in UNFIT else ''} does not descend what a look ahead asks. "
                f"Set it to {', '.join(fit[:-1])} or {fit[-1]}{', with compile: false' if name not in UNFIT else ''}"
            )
        return self

    @property
    def needs_double_backward(self) -> bool:
        """As the estimator says."""
        return self.estimator.needs_double_backward

    @abstractmethod
    def adapting(self, params: Params) -> list[str]:
        """Names of what the inner steps move."""

    @property
    @abstractmethod
    def step_sizes(self) -> StepSizes:
        """Of the inner steps."""

    def ahead(self, moment: Moment, params: Params, sizes: Params, minibatch: Minibatch, state: State) -> Params:
        """The meta-gradient, in the parameters and the learned step `sizes`.

        Raises `TrainingError` if a loss on the way is not finite.
        """
        new = [address for address in minibatch.addresses if address[0] == moment.experience]
        memory = drawn(state, self.replay or moment.batch_size, moment.random())
        asked = moment.minibatch([*minibatch.addresses, *memory])
        arriving = [moment.minibatch(new[first : first + self.arrive]) for first in range(0, len(new), self.arrive)]
        inner = self.adapting(params)

        def loss(theta: Params, phi: Params, examples: Minibatch) -> Tensor:
            bound = {name: theta.get(name, phi[name]) for name in params}
            outputs = moment.model.outputs(bound, examples.batch)
            return moment.model.loss(outputs, examples.batch.targets, examples.allowed)

        problem = InnerProblem(
            meta=as_leaves({**params, **sizes}),
            start=lambda phi: {name: phi[name] for name in inner},
            support_loss=lambda theta, phi, k: loss(theta, phi, arriving[k]),
            query_loss=lambda theta, phi: loss(theta, phi, asked),
            loop=InnerLoop(steps=len(arriving), step_size=self.step_sizes),
        )
        try:
            found = self.estimator.estimate(problem)
        except InnerLoopDiverged as error:
            raise self._not_finite(moment) from error
        if not math.isfinite(found.query_loss):
            raise self._not_finite(moment)
        return found.gradient

    def remembering(self, moment: Moment, minibatch: Minibatch, state: State) -> State:
        """The state with the new examples offered to the memory, in the first pass over them."""
        new = [address for address in minibatch.addresses if address[0] == moment.experience]
        if moment.epoch or not new:
            return state
        before = offered(state)
        memory = reservoir(stored(state), before, new, self.memory, moment.random(1))
        return {**state, MEMORY: as_memory(memory), OFFERED: torch.tensor(before + len(new))}

    def _not_finite(self, moment: Moment) -> TrainingError:
        return TrainingError(
            f"the loss after looking ahead is not finite in experience {moment.experience}, step {moment.step}. Lower "
            f"the step_size of {self.registered_name}."
        )
