"""A mixture of adapters: an expert a domain, and a gate (as in Aljundi et al. 2017, "Expert Gate", by embedding).

An expert is a whole set of adaptable parameters and is frozen when its experience is over, so nothing is forgotten but
by the gate. The gate asks the start's own features: an example goes to the expert whose mean embedding is nearest.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from metacl.continual.experience import Address, Stream
from metacl.continual.model import Model
from metacl.continual.moment import Moment
from metacl.continual.strategies.base import STRATEGIES, State, Strategy, held, under
from metacl.errors import ConfigError
from metacl.learners.base import Batch, Params
from metacl.learners.gate import nearness

KEYS, COUNTS, CURRENT = "keys", "counts", "current"
ENCODED_TOGETHER = 256


@STRATEGIES.register("experts")
class Experts(Strategy):
    """An expert for each experience, chosen by the nearest mean embedding.

    begin_from : a new expert begins from the "start" or from the "previous" expert. share_above : an experience whose
    mean embedding has at least this cosine with that of an expert trains that expert on, instead of a new one; 1 (the
    default) for a new one always.
    """

    begin_from: Literal["start", "previous"] = "start"
    share_above: Annotated[float, Field(ge=-1, le=1)] = 1.0

    def check(self, model: Model, stream: Stream) -> None:
        """The gate needs feature vectors."""
        needs_features("experts", model)

    def begin(self, moment: Moment, params: Params, state: State) -> tuple[Params, State]:
        """The parameters of the expert that learns, and which it is."""
        total, count = summed_features(moment, moment.pool.stream.train_addresses(moment.experience))
        if KEYS not in state:
            chosen, keys, counts = 0, total.unsqueeze(0), torch.tensor([count])
            return params, {KEYS: keys, COUNTS: counts, CURRENT: torch.tensor(chosen)}
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
        return begun, {**state, KEYS: keys, COUNTS: counts, CURRENT: torch.tensor(chosen)}

    def end(self, moment: Moment, params: Params, addresses: list[Address], state: State) -> tuple[Params, State]:
        """The expert is kept."""
        return params, {**state, **under(f"expert{int(state[CURRENT])}", params)}

    def predict(self, moment: Moment, params: Params, batch: Batch, state: State) -> Tensor | None:
        """Every example by its expert; by the one that learns while it is not kept yet."""
        if KEYS not in state:
            return None
        keys = state[KEYS] / state[COUNTS].unsqueeze(1)
        gate = nearness(moment.model.features(moment.start, batch), keys).argmax(1)
        answers: Tensor | None = None
        for number in gate.unique().tolist():
            expert = params if number == int(state[CURRENT]) else held(state, f"expert{number}")
            found = moment.model.outputs(expert, batch)
            answers = found if answers is None else torch.where((gate == number).unsqueeze(1), found, answers)
        return answers


def needs_features(name: str, model: Model) -> None:
    """Raises `ConfigError` for a learner without feature vectors."""
    if model.learner.width is None:
        raise ConfigError(
            f"strategies: {name} looks at feature vectors, and a {type(model.learner).__name__} has none. Leave it "
            f"out, or set learner=text_classifier."
        )


def summed_features(moment: Moment, addresses: list[Address]) -> tuple[Tensor, int]:
    """The sum (D,) of the start's feature vectors of some examples, and how many they are."""
    with torch.no_grad():
        parts = [
            moment.model.features(moment.start, part.batch).sum(0)
            for part in moment.minibatches(addresses, ENCODED_TOGETHER)
        ]
    return torch.stack(parts).sum(0), len(addresses)
