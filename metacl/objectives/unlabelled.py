"""Adaptation from unlabelled examples: the inner loss does not look at a label, the query loss does.

entropy : of the model's own predictions (Grandvalet & Bengio 2004, eq. 6; Wang et al. 2021, "Tent", sec. 3.2).
self_supervised : the learner's own task on its inputs, masked or next tokens; see `Learner.self_supervised_loss`.

Meta-learning with a loss that labels do not enter: Sun et al. 2020, "Test-Time Training"; Metz et al. 2019.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from metacl.learners.base import Learner, Params, Task
from metacl.objectives.base import OBJECTIVES
from metacl.objectives.maml import MAML


@OBJECTIVES.register("unlabelled")
class Unlabelled(MAML):
    """Adapts by entropy or by a self-supervised loss; support labels are never read, the head is learned."""

    by: Literal["entropy", "self_supervised"] = "entropy"

    def initial_head(self, ways: int, width: int) -> Tensor:
        """Unit vectors: a head of zeros predicts the same of everything, and no loss without labels would change it."""
        return torch.eye(ways, width)

    def support_loss(self, learner: Learner, params: Params, task: Task, step: int) -> Tensor:
        """The mean over the support's inputs, labels left out."""
        if self.by == "self_supervised":
            return learner.self_supervised_loss(params, task.support)
        scores = self.outputs(learner, params, task.support)
        return -(F.softmax(scores, -1) * F.log_softmax(scores, -1)).sum(-1).mean()
