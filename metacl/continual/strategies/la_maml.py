"""La-MAML: look-ahead meta-learning along a stream (Gupta et al. 2020, algorithm 1).

Every number has a learned step size, α. A batch b is learned one example after another with them; L is the loss on b
and a sample of the memory afterwards, and α ← α − η ∇_α L, then θ ← θ − max(0, α) ∇_θ L, so that what would make old
examples be forgotten is learned slowly or not at all.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import NonNegativeFloat, PositiveFloat

from metacl.adaptation.inner_loop import StepSizes
from metacl.continual.moment import Moment
from metacl.continual.pool import Minibatch
from metacl.continual.strategies.base import STRATEGIES, State, held, under
from metacl.continual.strategies.look_ahead import LookAhead
from metacl.learners.base import HEAD, STEP_SIZE, Params
from metacl.metagradients import ESTIMATORS, MetaGradient
from metacl.registry import chosen_from

ALPHA = "alpha"


@STRATEGIES.register("la_maml")
class LookAheadMAML(LookAhead):
    """Learned step sizes for every number; the meta-gradient through the new examples and a memory.

    What is tested is θ, before any inner step. Where classes are new to one shared head, it is the inner steps that
    bring them, and θ knows them late: this is for domains, or for scenario "task", as in the paper.

    step_size, head_step_size : α at the start; null for the same in the head. step_size_learning_rate : η; 0 keeps α.
    synchronous : the parameters take a step of the training's optimizer and learning rate instead of max(0, α)
    (Sync-La-MAML; with η = 0 it is C-MAML). estimator : of the meta-gradient; the paper's is first order.
    """

    step_size: PositiveFloat = 0.03
    head_step_size: PositiveFloat | None = None
    step_size_learning_rate: NonNegativeFloat = 0.1
    synchronous: bool = False
    estimator: Annotated[MetaGradient, chosen_from(ESTIMATORS)] = ESTIMATORS.build({"name": "first_order"})

    def adapting(self, params: Params) -> list[str]:
        """All of them."""
        return list(params)

    @property
    def step_sizes(self) -> StepSizes:
        """One for every number."""
        return StepSizes(learn="parameter")

    def begin(self, moment: Moment, params: Params, state: State) -> tuple[Params, State]:
        """Step sizes at their start, before the first experience."""
        if held(state, ALPHA):
            return params, state
        return params, {**state, **under(ALPHA, {n: torch.full_like(t, self._first(n)) for n, t in params.items()})}

    def loss_gradient(self, moment: Moment, params: Params, minibatch: Minibatch, state: State) -> tuple[Params, State]:
        """∇_θ L, and the state with the step sizes after their own step."""
        alpha = held(state, ALPHA)
        found = self.ahead(moment, params, {STEP_SIZE + name: alpha[name] for name in params}, minibatch, state)
        learned = {n: alpha[n] - self.step_size_learning_rate * found[STEP_SIZE + n] for n in params}
        state = {**state, **under(ALPHA, learned)}
        return {name: found[name] for name in params}, self.remembering(moment, minibatch, state)

    def rates(self, moment: Moment, rates: Params, state: State) -> Params:
        """max(0, α), of the step sizes as they are learned by now."""
        if self.synchronous:
            return rates
        return {name: alpha.clamp(min=0) for name, alpha in held(state, ALPHA).items()}

    def grown(self, state: State, start: Params) -> State:
        """New classes begin with the step size of the start."""
        found = super().grown(state, start)
        for key, tensor in state.items():
            if key.startswith(f"{ALPHA}/") and len(found[key]) > len(tensor):
                found[key][len(tensor) :] = self._first(key.removeprefix(f"{ALPHA}/"))
        return found

    def _first(self, name: str) -> float:
        return self.head_step_size or self.step_size if name.startswith(HEAD) else self.step_size
