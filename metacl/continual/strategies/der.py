"""Dark experience replay: the memory holds what the model answered (Buzzega et al. 2020, eq. 6: DER++)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from metacl.continual.experience import Address, Stream
from metacl.continual.memory import Policy
from metacl.continual.model import Model
from metacl.continual.moment import Moment
from metacl.continual.pool import Minibatch
from metacl.continual.strategies.base import STRATEGIES, State, Strategy, stored
from metacl.continual.strategies.lwf import needs_classes
from metacl.continual.strategies.replay import remembered
from metacl.learners.base import Params

OUTPUTS = "outputs"
ENCODED_TOGETHER = 256


@STRATEGIES.register("der_plus_plus")
class DarkExperienceReplay(Strategy):
    """Adds alpha · mean squared distance to stored class scores + beta · cross-entropy, on `batch` stored examples.

    memory, policy : as for replay. batch : examples drawn at a step, one draw for both terms; null for as many as new.
    Scores are stored when the experience ends, of the classes that are told apart then; others are left free.
    beta : 0 is plain DER.
    """

    memory: PositiveInt = 200
    alpha: NonNegativeFloat = 0.1
    beta: NonNegativeFloat = 0.5
    batch: PositiveInt | None = None
    policy: Policy = "class_balanced"

    def check(self, model: Model, stream: Stream) -> None:
        """Answers are classes."""
        needs_classes("der_plus_plus", model)

    def penalty(
        self, moment: Moment, params: Params, minibatch: Minibatch, outputs: Tensor, state: State
    ) -> Tensor | None:
        """Both terms; nothing while the memory is empty."""
        memory = stored(state)
        if not memory:
            return None
        count = min(self.batch or moment.batch_size, len(memory))
        places = moment.random().sample(range(len(memory)), count)
        old = moment.minibatch([memory[place] for place in places])
        answers = moment.model.outputs(params, old.batch)
        wanted = state[OUTPUTS][places]
        known = ~wanted.isnan()
        distance = F.mse_loss(answers[:, : wanted.shape[1]][known], wanted[known])
        return self.alpha * distance + self.beta * moment.model.loss(answers, old.batch.targets, old.allowed)

    def end(self, moment: Moment, params: Params, addresses: list[Address], state: State) -> tuple[Params, State]:
        """The experience's examples are offered; what is kept of them is asked for its scores."""
        after = remembered(moment, self.policy, self.memory, addresses, state, moment.random(1))
        memory = stored(after)
        before = dict(zip(stored(state), state[OUTPUTS], strict=True)) if OUTPUTS in state else {}
        new = [address for address in memory if address not in before]
        with torch.no_grad():
            for part in moment.minibatches(new, ENCODED_TOGETHER):
                answers = moment.model.outputs(params, part.batch)
                if part.allowed is not None:
                    answers = answers.masked_fill(~part.allowed, torch.nan)
                before.update(zip(part.addresses, answers, strict=True))
        if not memory:
            return params, after
        width = max(before[address].numel() for address in memory)
        rows = [F.pad(row, (0, width - row.numel()), value=torch.nan) for row in map(before.__getitem__, memory)]
        return params, {**after, OUTPUTS: torch.stack(rows)}
