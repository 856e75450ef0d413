"""BOIL (Oh et al. 2021, "BOIL: Towards Representation Change for Few-shot Learning", sec. 3): the head stays fixed."""

from __future__ import annotations

import torch

from metacl.learners.base import HEAD, Learner, Params
from metacl.objectives.base import OBJECTIVES
from metacl.objectives.maml import MAML


@OBJECTIVES.register("boil")
class BOIL(MAML):
    """Body only in the inner loop: the features adapt, the head stays as learned."""

    def learned(self, learner: Learner, ways: int) -> Params:
        """As MAML's, the head from unit vectors: a head of zeros that cannot move would send the features nothing."""
        learned = super().learned(learner, ways)
        if learner.width is not None:
            learned["head.weight"] = torch.eye(ways, learner.width)
        return learned

    def adaptable(self, name: str) -> bool:
        """All but the head."""
        return not name.startswith(HEAD)
