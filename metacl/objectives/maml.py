"""MAML (Finn et al. 2017, eq. 1): everything is learned and everything adapts, the N-way head included."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from metacl.learners.base import Learner, Params
from metacl.objectives.base import OBJECTIVES, MetaObjective


@OBJECTIVES.register("maml")
class MAML(MetaObjective):
    """All parameters adapt from a learned start; the head is learned too, from zeros, for a fixed N.

    A learner without features (any `nn.Module`) has its head, if any, inside and gets none on top.
    """

    fixed_ways: ClassVar[bool] = True

    def learned(self, learner: Learner, ways: int) -> Params:
        """The adapter and an N-way head."""
        if learner.width is None:
            return dict(learner.initial)
        head = {"head.weight": self.initial_head(ways, learner.width), "head.bias": torch.zeros(ways)}
        return {**learner.initial, **head}

    def initial_head(self, ways: int, width: int) -> Tensor:
        """The head's weight before training, (N, D). Default: zeros, which the first inner step leaves."""
        return torch.zeros(ways, width)
