"""Synaptic intelligence: importance is what a parameter's way took off the loss (Zenke et al. 2017, eq. 3 to 5)."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from metacl.continual.experience import Address
from metacl.continual.moment import Moment
from metacl.continual.pool import Minibatch
from metacl.continual.quadratic import Anchor, Step, penalty, proximal
from metacl.continual.strategies.base import STRATEGIES, State, Strategy, held, under
from metacl.learners.base import Params


@STRATEGIES.register("si")
class SynapticIntelligence(Strategy):
    """Adds strength · Σ Ω (θ − θ*)², where Ω grows by max(ω, 0) / (Δ² + damping) at the end of an experience.

    ω sums −g · δ over its steps, g the gradient of the loss alone (of new and replayed examples, without any penalty)
    and δ what the step did to the parameter; Δ is its way in the whole experience. damping : ξ of the paper.
    step : "proximal" (`metacl.continual.quadratic`), because Ω is as large as 1 / damping allows; or "explicit".
    """

    strength: NonNegativeFloat = 1.0
    damping: PositiveFloat = 1e-3
    step: Step = "proximal"

    @property
    def wants_task_gradient(self) -> bool:
        """With the penalty's own gradient in it, importance would feed on itself."""
        return True

    def begin(self, moment: Moment, params: Params, state: State) -> tuple[Params, State]:
        """A new way begins."""
        zeros = {name: torch.zeros_like(tensor) for name, tensor in params.items()}
        return params, {**state, **under("work", zeros), **under("from", params)}

    def penalty(
        self, moment: Moment, params: Params, minibatch: Minibatch, outputs: Tensor, state: State
    ) -> Tensor | None:
        """Nothing in the first experience."""
        return penalty(params, _anchors(state), self.strength) if self.step == "explicit" else None

    def settle(
        self, moment: Moment, before: Params, after: Params, task_gradient: Params, rates: Params, state: State
    ) -> tuple[Params, State]:
        """ω of one step more, and the proximal step; what that moves is the penalty's doing and not in ω."""
        if moment.step == 0:  # other strategies, or a head from class means, may have moved it since `begin`
            state = {**state, **under("from", before)}
        work = held(state, "work")
        more = {name: work[name] - task_gradient[name] * (after[name] - before[name]) for name in work}
        if self.step == "proximal":
            after = proximal(after, _anchors(state), self.strength, rates)
        return after, {**state, **under("work", more)}

    def end(self, moment: Moment, params: Params, addresses: list[Address], state: State) -> tuple[Params, State]:
        """Ω, and the parameters as the anchor."""
        work, origin, importance = held(state, "work"), held(state, "from"), held(state, "importance")
        grown = {
            name: work[name].clamp(min=0) / ((params[name] - origin[name]).square() + self.damping) for name in work
        }
        summed = {name: importance[name] + new if importance else new for name, new in grown.items()}
        return params, {**under("importance", summed), **under("anchor", params)}


def _anchors(state: State) -> list[Anchor]:
    """None in the first experience."""
    importance = held(state, "importance")
    return [(importance, held(state, "anchor"))] if importance else []
