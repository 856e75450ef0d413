"""BOIL (Oh et al. 2021, "BOIL: Towards Representation Change for Few-shot Learning", sec. 3): the head stays fixed."""

from __future__ import annotations

import torch
from torch import Tensor

from metacl.learners.base import HEAD
from metacl.objectives.base import OBJECTIVES
from metacl.objectives.maml import MAML


@OBJECTIVES.register("boil")
class BOIL(MAML):
    """Body only in the inner loop: the features adapt, the head stays as learned."""

    def initial_head(self, ways: int, width: int) -> Tensor:
        """Unit vectors: a head of zeros that cannot move would send the features nothing."""
        return torch.eye(ways, width)

    def adaptable(self, name: str) -> bool:
        """All but the head."""
        return not name.startswith(HEAD)
