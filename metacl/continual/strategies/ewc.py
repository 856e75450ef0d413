"""Elastic weight consolidation: stay near what earlier experiences found, where they were sensitive.

Kirkpatrick et al. 2017, eq. 3; an anchor for every experience ("separate"), or one with a decayed sum of importances
("online", Schwarz et al. 2018, "Progress & Compress", sec. 4). The penalty is strength · Σ F (θ − θ*)², without the ½
of the paper, so strength = λ / 2.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor

from metacl.continual.experience import Address, Stream
from metacl.continual.fisher import Kind, fisher
from metacl.continual.lora import check_factors, from_offsets, products
from metacl.continual.model import Model
from metacl.continual.moment import Moment
from metacl.continual.pool import Minibatch
from metacl.continual.quadratic import Anchor, Step, penalty, proximal
from metacl.continual.strategies.base import STRATEGIES, State, Strategy, held, under
from metacl.errors import ConfigError
from metacl.learners.base import Params


@STRATEGIES.register("ewc")
class ElasticWeightConsolidation(Strategy):
    """Adds strength · Σ F (θ − θ*)² for earlier experiences, F the diagonal of the Fisher information.

    fisher : "exact", "sampled", "empirical" or "batched" (`metacl.continual.fisher`). examples : it is computed on,
    drawn at random; null for all. mode : an anchor an experience ("separate"), or one with
    F ← decay · F_before + F ("online"). step : "explicit", or "proximal", which is stable for any strength
    (`metacl.continual.quadratic`); with Adam it takes the learning rate, too. on : "weights", or the matrices that
    LoRA's factors make ("product").
    """

    strength: NonNegativeFloat = 100.0
    fisher: Kind = "empirical"
    examples: PositiveInt | None = None
    mode: Literal["separate", "online"] = "separate"
    decay: Annotated[float, Field(ge=0, le=1)] = 1.0
    step: Step = "explicit"
    on: Literal["weights", "product"] = "weights"

    @model_validator(mode="after")
    def _no_step_between_factors(self) -> ElasticWeightConsolidation:
        if self.on == "product" and self.step == "proximal":
            raise ValueError("step: proximal has no closed form on a product of factors. Set on=weights, step=explicit")
        return self

    def check(self, model: Model, stream: Stream) -> None:
        """A product needs LoRA; an answer that can be drawn needs classes."""
        if self.on == "product":
            check_factors("ewc with on=product", model)
        if not model.classes and self.fisher in ("exact", "sampled"):
            raise ConfigError(f"strategies: a {self.fisher} Fisher needs classes. Set fisher=empirical, or batched.")

    def penalty(
        self, moment: Moment, params: Params, minibatch: Minibatch, outputs: Tensor, state: State
    ) -> Tensor | None:
        """The sum over all anchors."""
        if self.step == "proximal":
            return None
        return penalty(products(params) if self.on == "product" else params, _anchors(state), self.strength)

    def settle(
        self, moment: Moment, before: Params, after: Params, task_gradient: Params, rates: Params, state: State
    ) -> tuple[Params, State]:
        """The proximal step."""
        if self.step == "explicit":
            return after, state
        return proximal(after, _anchors(state), self.strength, rates), state

    def end(self, moment: Moment, params: Params, addresses: list[Address], state: State) -> tuple[Params, State]:
        """The importances at the end, and the parameters as the anchor."""
        asked = addresses
        if self.examples is not None and self.examples < len(addresses):
            asked = moment.random(1).sample(addresses, self.examples)
        if not asked:
            return params, state
        anchor = products(params) if self.on == "product" else params
        if self.on == "product":
            at = {name: torch.zeros_like(t) if name.endswith("delta") else t for name, t in anchor.items()}
            found = fisher(
                moment, at, asked, self.fisher, moment.batch_size, lambda offsets: from_offsets(params, offsets)
            )
        else:
            found = fisher(moment, params, asked, self.fisher, moment.batch_size, lambda same: same)
        if self.mode == "separate":
            k = moment.experience
            return params, {**state, **under(f"importance{k}", found), **under(f"anchor{k}", anchor)}
        old = held(state, "importance0")
        summed = {name: self.decay * old[name] + new if old else new for name, new in found.items()}
        return params, {**under("importance0", summed), **under("anchor0", anchor)}


def _anchors(state: State) -> list[Anchor]:
    """Of each experience that has any."""
    numbers = sorted({int(name.split("/", 1)[0].removeprefix("anchor")) for name in state if name.startswith("anchor")})
    return [(held(state, f"importance{k}"), held(state, f"anchor{k}")) for k in numbers]
