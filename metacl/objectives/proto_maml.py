"""ProtoMAML (Triantafillou et al. 2020, "Meta-Dataset", sec. 3): MAML whose head starts from the class means.

With features f and class means c_n, the start W_n = 2 c_n, b_n = −‖c_n‖² makes the logits
−‖f(x) − c_n‖² up to a constant: a prototypical network (Snell et al. 2017, eq. 8) that can be fine-tuned.
The head is not learned, so N may differ from task to task; the meta-gradient flows through the means.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metacl.learners.base import Learner, Params, Task
from metacl.objectives.base import OBJECTIVES, MetaObjective


@OBJECTIVES.register("proto_maml")
class ProtoMAML(MetaObjective):
    """The adapter is learned; the head starts from the support's class means; both adapt."""

    pure = True

    def start(self, learner: Learner, meta: Params, task: Task) -> Params:
        """The learned adapter, and the head from the class means of its features."""
        adapter = super().start(learner, meta, task)
        assert task.support.targets is not None
        means = class_means(learner.features(meta, task.support), task.support.targets, task.ways)
        return {**adapter, "head.weight": 2 * means, "head.bias": -(means * means).sum(-1)}

    def inner_names(self, learned: Params) -> list[str]:
        """The adapter and the head."""
        return [*super().inner_names(learned), "head.weight", "head.bias"]


def class_means(features: Tensor, targets: Tensor, ways: int) -> Tensor:
    """Mean feature per class, (N, D), from features (B, D) and targets (B,)."""
    members = torch.nn.functional.one_hot(targets, ways).to(features.dtype)  # (B, N)
    return (members.T @ features) / members.sum(0).unsqueeze(-1)
