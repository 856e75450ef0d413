"""MAML (Finn et al. 2017, eq. 1): everything is learned and everything adapts, the N-way head included."""

from __future__ import annotations

import torch

from metacl.learners.base import Learner, Params
from metacl.objectives.base import OBJECTIVES, MetaObjective


@OBJECTIVES.register("maml")
class MAML(MetaObjective):
    """All parameters adapt from a learned start; the head is learned too, from zeros, for a fixed N."""

    def learned(self, learner: Learner, ways: int) -> Params:
        """The adapter and an N-way head."""
        head = {"head.weight": torch.zeros(ways, learner.width), "head.bias": torch.zeros(ways)}
        return {**learner.initial, **head}
