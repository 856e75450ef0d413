"""O-LoRA: every experience has ranks of its own, orthogonal to the earlier ones (Wang et al. 2023, eq. 5 to 8).

The ranks of the learner's adapter are dealt out: experience k trains rows kq … (k + 1)q of A and those columns of B,
and the others stay as they are. All of them are added up in the model, as in the paper.
"""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from metacl.continual.experience import Stream
from metacl.continual.lora import check_factors, pairs
from metacl.continual.model import Model
from metacl.continual.moment import Moment
from metacl.continual.pool import Minibatch
from metacl.continual.strategies.base import STRATEGIES, State, Strategy
from metacl.errors import ConfigError
from metacl.learners.base import Params


@STRATEGIES.register("o_lora")
class OrthogonalLora(Strategy):
    """Ranks of its own for each experience, and a penalty on their overlap with the earlier ones.

    rank : q, of an experience; the adapter's rank must be q times the experiences. strength : of the mean squared
    cosine between new and earlier rows of A. The paper sums |A_earlier A_newᵀ|; per pair of rows of unit length it
    means the same for any rank, width and scale.
    """

    rank: PositiveInt = 2
    strength: NonNegativeFloat = 1.0

    def check(self, model: Model, stream: Stream) -> None:
        """LoRA with enough ranks."""
        check_factors("o_lora", model)
        found = pairs(model.learner.initial)
        has = min(len(model.learner.initial[a]) for a, _ in found.values())
        needs = self.rank * len(stream)
        if has < needs:
            raise ConfigError(
                f"strategies: o_lora gives each of {len(stream)} experiences {self.rank} ranks, and the adapter has "
                f"{has}. Set learner.adapter.rank={needs} (and alpha in proportion)."
            )

    def penalty(
        self, moment: Moment, params: Params, minibatch: Minibatch, outputs: Tensor, state: State
    ) -> Tensor | None:
        """Mean over modules of the mean squared cosine; nothing in the first experience."""
        if not moment.experience:
            return None
        first = moment.experience * self.rank
        terms = []
        for a, _ in pairs(params).values():
            rows = torch.nn.functional.normalize(params[a][: first + self.rank], dim=1)
            terms.append((rows[:first].detach() @ rows[first:].T).square().mean())
        return self.strength * torch.stack(terms).mean()

    def settle(
        self, moment: Moment, before: Params, after: Params, task_gradient: Params, rates: Params, state: State
    ) -> tuple[Params, State]:
        """Whatever the optimizer did to the ranks of others is undone."""
        own = slice(moment.experience * self.rank, (moment.experience + 1) * self.rank)
        kept = dict(after)
        for a, b in pairs(after).values():
            kept[a], kept[b] = before[a].clone(), before[b].clone()
            kept[a][own], kept[b][:, own] = after[a][own], after[b][:, own]
        return kept, state
