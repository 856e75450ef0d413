"""Dark experience replay: the memory holds what the model answered (Buzzega et al. 2020, eq. 6: DER++)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from metacl.continual.experience import Address
from metacl.continual.memory import Policy
from metacl.continual.moment import Moment
from metacl.continual.pool import Minibatch
from metacl.continual.strategies.base import STRATEGIES, State, Strategy, stored
from metacl.continual.strategies.replay import remembered
from metacl.learners.base import Params

OUTPUTS = "outputs"
ENCODED_TOGETHER = 256


@STRATEGIES.register("der_plus_plus")
class DarkExperienceReplay(Strategy):
    """Adds alpha · mean squared distance to stored class scores + beta · cross-entropy, on `batch` stored examples.

    memory, policy : as for replay. batch : examples drawn at a step, one draw for both terms; null for as many as new.
    Scores are stored when the experience ends; those of classes that came later are left free. beta : 0 is plain DER.
    """

    memory: PositiveInt = 200
    alpha: NonNegativeFloat = 0.1
    beta: NonNegativeFloat = 0.5
    batch: PositiveInt | None = None
    policy: Policy = "class_balanced"

    def penalty(
        self, moment: Moment, params: Params, minibatch: Minibatch, outputs: Tensor, state: State
    ) -> Tensor | None:
        """Both terms; nothing while the memory is empty."""
        memory = stored(state)
        if not memory:
            return None
        count = min(self.batch or moment.batch_size, len(memory))
        places = moment.random().sample(range(len(memory)), count)
        old = moment.pool.minibatch([memory[place] for place in places])
        answers = moment.model.outputs(params, old.batch)
        wanted = state[OUTPUTS][places]
        answered = answers[:, : wanted.shape[1]] if answers.dim() > 1 else answers
        distance = F.mse_loss(answered, wanted)
        return self.alpha * distance + self.beta * moment.model.loss(answers, old.batch.targets, old.allowed)

    def end(self, moment: Moment, params: Params, addresses: list[Address], state: State) -> tuple[Params, State]:
        """The experience's examples are offered; what is kept of them is asked for its scores."""
        after = remembered(moment, self.policy, self.memory, addresses, state, moment.random(1))
        memory = stored(after)
        before = dict(zip(stored(state), state[OUTPUTS], strict=True)) if OUTPUTS in state else {}
        new = [address for address in memory if address not in before]
        with torch.no_grad():
            for part in moment.pool.minibatches(new, ENCODED_TOGETHER):
                before.update(zip(part.addresses, moment.model.outputs(params, part.batch), strict=True))
        width = max(before[address].numel() for address in memory)
        rows = [F.pad(row, (0, width - row.numel())) if row.dim() else row for row in map(before.__getitem__, memory)]
        return params, {**after, OUTPUTS: torch.stack(rows)}
