"""Distillation as a regularizer: the adapted model stays near a teacher (Hinton et al. 2015, sec. 2).

    L = L_task + α T² KL(teacher ‖ student),    teacher = softmax(z_t / T), student = softmax(z_s / T)

The direction is the one that punishes a student for losing what the teacher holds likely; T² keeps the size of its
gradient whatever T is. An inner step takes the teacher as constant; a teacher that is the task's own start is learned
with it, so the meta-gradient runs through it, too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from metacl.adaptation import InnerLoop
from metacl.learners.base import Batch, Learner, Params, Task
from metacl.metagradients import InnerProblem
from metacl.objectives.base import OBJECTIVES
from metacl.objectives.wrapper import Wrapper


@OBJECTIVES.register("distilled")
class Distilled(Wrapper):
    """Adds α T² KL(teacher ‖ student) to the loss on the support, on the query, or on both.

    teacher : "start", the task's own start θ_0 before any step, or "pretrained", the start that the learner's initial
    parameters would give. weight : α. temperature : T. on : the batches whose loss gets the term.
    """

    teacher: Literal["start", "pretrained"] = "start"
    weight: NonNegativeFloat = 1.0
    temperature: PositiveFloat = 2.0
    on: Literal["support", "query", "both"] = "both"

    def problem(self, learner: Learner, meta: Params, task: Task, loop: InnerLoop) -> InnerProblem:
        """`of`'s, with the term added."""
        plain = self.of.problem(learner, meta, task, loop)
        pretrained = {name: tensor.to(learner.device) for name, tensor in learner.initial.items()}

        def distance(theta: Params, phi: Params, batch: Batch) -> Tensor:
            known = {**phi, **pretrained} if self.teacher == "pretrained" else phi
            teacher = self.outputs(learner, self.bind(plain.start(known), known), batch)
            return divergence(teacher, self.outputs(learner, self.bind(theta, phi), batch), self.temperature)

        def support_loss(theta: Params, phi: Params, k: int) -> Tensor:
            return plain.support_loss(theta, phi, k) + self.weight * distance(theta, phi, task.support)

        def query_loss(theta: Params, phi: Params) -> Tensor:
            return plain.query_loss(theta, phi) + self.weight * distance(theta, phi, task.query)

        changed = plain
        if self.on in ("support", "both"):
            changed = replace(changed, support_loss=support_loss)
        return replace(changed, query_loss=query_loss) if self.on in ("query", "both") else changed


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """T² KL(teacher ‖ student) of class scores (B, N) at temperature T, the mean over the batch."""
    target, found = (F.log_softmax(scores / temperature, dim=-1) for scores in (teacher, student))
    return temperature**2 * F.kl_div(found, target, log_target=True, reduction="batchmean")
