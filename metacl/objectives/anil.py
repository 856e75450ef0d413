"""ANIL (Raghu et al. 2020, sec. 4.1): the whole model is learned, only the head adapts in the inner loop."""

from __future__ import annotations

from metacl.learners.base import HEAD
from metacl.objectives.base import OBJECTIVES
from metacl.objectives.maml import MAML


@OBJECTIVES.register("anil")
class ANIL(MAML):
    """Almost no inner loop: the learned features stay, the head adapts."""

    def adaptable(self, name: str) -> bool:
        """Only the head."""
        return name.startswith(HEAD)
