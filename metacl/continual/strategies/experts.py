"""A mixture of adapters: an expert a domain, and a gate (as in Aljundi et al. 2017, "Expert Gate", by embedding).

An expert is a whole set of adaptable parameters and is frozen when its experience is over, so nothing is forgotten but
by the gate. The gate reads the start's own features, which never change: by the nearest mean embedding, or learned.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from metacl.continual.discriminant import log_posterior
from metacl.continual.experience import Address, Stream
from metacl.continual.model import Model
from metacl.continual.moment import Moment
from metacl.continual.strategies.base import STRATEGIES, State, Strategy, held, under
from metacl.continual.strategies.start_features import features_of_test, needs_features, start_features
from metacl.learners.base import Batch, Params
from metacl.learners.gate import nearness

KEYS, COUNTS, CURRENT, PRODUCTS = "keys", "counts", "current", "products"


@STRATEGIES.register("experts")
class Experts(Strategy):
    """An expert for each experience, and a gate that chooses or mixes them.

    begin_from : a new expert begins from the "start" or from the "previous" expert. share_above : an experience whose
    mean embedding has at least this cosine with that of an expert trains that expert on, instead of a new one; 1 (the
    default) for a new one always.
    router : "nearest", the expert whose mean embedding has the greatest cosine; or "learned", a softmax gate that tells
    the experts' examples apart, kept from running sums (see `metacl.continual.discriminant`). shrinkage : of its
    covariance, more than 0 to 1; null for as much as the number of examples asks for. mixture : a learned router mixes
    all experts, Σ_e g_e(x) p_e(y | x) (Jacobs et al. 1991, "Adaptive Mixtures of Local Experts"), and does not choose
    the most probable one; every expert is then asked about every example.
    """

    begin_from: Literal["start", "previous"] = "start"
    share_above: Annotated[float, Field(ge=-1, le=1)] = 1.0
    router: Literal["nearest", "learned"] = "nearest"
    shrinkage: Annotated[float, Field(gt=0, le=1)] | None = None
    mixture: bool = False

    @model_validator(mode="after")
    def _a_learned_gate_has_shares(self) -> Experts:
        for key in ("shrinkage", "mixture"):
            if self.router == "nearest" and getattr(self, key):
                raise ValueError(f"{key}: router nearest has none. Set router=learned, or leave {key} out")
        return self

    def check(self, model: Model, stream: Stream) -> None:
        """The gate needs feature vectors."""
        needs_features("experts", model)

    def begin(self, moment: Moment, params: Params, state: State) -> tuple[Params, State]:
        """The parameters of the expert that learns, and which it is."""
        addresses = moment.pool.stream.train_addresses(moment.experience)
        total, products = self._sums(moment, addresses)
        count = len(addresses)
        if KEYS not in state:
            chosen, keys, counts = 0, total.unsqueeze(0), torch.tensor([count])
            return params, {KEYS: keys, COUNTS: counts, CURRENT: torch.tensor(chosen), **products}
        if PRODUCTS in state:
            products = {PRODUCTS: state[PRODUCTS] + products[PRODUCTS]}
        cosines = nearness(total.unsqueeze(0), state[KEYS])[0]
        chosen = int(cosines.argmax())
        if self.share_above < 1 and float(cosines[chosen]) >= self.share_above:
            keys, counts = state[KEYS].clone(), state[COUNTS].clone()
            keys[chosen] += total
            counts[chosen] += count
            expert = held(state, f"expert{chosen}")
            begun = {name: expert[name] for name in params}  # a stored state is sorted by name; sums keep their order
        else:
            chosen = len(state[KEYS])
            keys = torch.cat([state[KEYS], total.unsqueeze(0)])
            counts = torch.cat([state[COUNTS], torch.tensor([count])])
            begun = moment.start if self.begin_from == "start" else params
        return begun, {**state, KEYS: keys, COUNTS: counts, CURRENT: torch.tensor(chosen), **products}

    def end(self, moment: Moment, params: Params, addresses: list[Address], state: State) -> tuple[Params, State]:
        """The expert is kept."""
        return params, {**state, **under(f"expert{int(state[CURRENT])}", params)}

    def predict(self, moment: Moment, params: Params, batch: Batch, state: State) -> Tensor | None:
        """Every example by its expert, or by all; by the one that learns while it is not kept yet."""
        if KEYS not in state:
            return None
        gate = self._gate(features_of_test(moment, batch), state)
        current = int(state[CURRENT])

        def answers(number: int) -> Tensor:
            expert = params if number == current else held(state, f"expert{number}")
            return moment.model.outputs(expert, batch)

        if self.mixture:
            each = torch.stack([answers(number).log_softmax(-1) for number in range(gate.shape[1])], 1)  # (B, E, N)
            return (gate.to(each.dtype).unsqueeze(-1) + each).logsumexp(1)
        chosen = gate.argmax(1)
        found: Tensor | None = None
        for number in chosen.unique().tolist():
            here = answers(number)
            found = here if found is None else torch.where((chosen == number).unsqueeze(1), here, found)
        return found

    def _gate(self, features: Tensor, state: State) -> Tensor:
        """(B, E): the greatest is of the expert to ask; log-shares of a learned one."""
        if self.router == "nearest":
            return nearness(features, state[KEYS] / state[COUNTS].unsqueeze(1))
        return log_posterior(features, state[KEYS], state[COUNTS], state[PRODUCTS], self.shrinkage)

    def _sums(self, moment: Moment, addresses: list[Address]) -> tuple[Tensor, State]:
        """The sum (D,) of the start's feature vectors; and, for a learned gate, in float64, with their products."""
        if self.router == "nearest":
            return torch.stack([features.sum(0) for _, features in start_features(moment, addresses)]).sum(0), {}
        parts = [features.double() for _, features in start_features(moment, addresses)]
        total, products = (torch.stack(found).sum(0) for found in ([f.sum(0) for f in parts], [f.T @ f for f in parts]))
        return total, {PRODUCTS: products}
