"""Merging: after each experience the adapter goes back part of the way (Ilharco et al. 2023, "Task Arithmetic")."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from metacl.continual.experience import Address
from metacl.continual.moment import Moment
from metacl.continual.strategies.base import STRATEGIES, State, Strategy, held, under
from metacl.learners.base import HEAD, Params


@STRATEGIES.register("merging")
class Merging(Strategy):
    """θ ← θ_before + weight · (θ − θ_before) at the end of an experience, for everything but the head.

    weight : null (default) for 1 / (experiences so far), the running mean of what each of them found.
    Listed first, so that others remember what is merged.
    """

    weight: Annotated[float, Field(ge=0, le=1)] | None = None
    moves_at_end: ClassVar[bool] = True

    def begin(self, moment: Moment, params: Params, state: State) -> tuple[Params, State]:
        """Where it comes from is kept."""
        return params, under("before", params)

    def end(self, moment: Moment, params: Params, addresses: list[Address], state: State) -> tuple[Params, State]:
        """The merged parameters."""
        weight = 1 / (moment.experience + 1) if self.weight is None else self.weight
        before = held(state, "before")
        merged = {
            name: tensor if name.startswith(HEAD) else before[name] + weight * (tensor - before[name])
            for name, tensor in params.items()
        }
        return merged, {}
