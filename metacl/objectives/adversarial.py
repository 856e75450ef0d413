"""Adversarial examples in feature space, against which a task is learned or asked.

Texts have no gradient, so what is disturbed is the feature vector, as Miyato et al. 2017 ("Adversarial Training Methods
for Semi-Supervised Text Classification", sec. 3) disturb word embeddings. FGM goes a distance `radius` along the
normalized gradient (after Goodfellow et al. 2015); PGD (Madry et al. 2018, sec. 2.1) takes several smaller steps, kept
inside the ball. The disturbance is part of the loss: the meta-gradient runs through its making.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from metacl.adaptation import InnerLoop
from metacl.learners.base import Batch, Learner, Params, Task
from metacl.metagradients import InnerProblem
from metacl.objectives.base import OBJECTIVES
from metacl.objectives.wrapper import Wrapper

SMALL = 1e-12
"""Added under the root of a length, so that a gradient of zeros has a direction (none) and a derivative."""


@OBJECTIVES.register("adversarial")
class Adversarial(Wrapper):
    """Adds the loss on features that were moved against the model, on the support, the query, or both.

    radius : Euclidean, of the disturbance of a feature vector. steps : 1 is FGM, more are PGD with steps of
    2 · radius / steps. weight : of the adversarial loss beside the plain one.
    """

    radius: PositiveFloat = 0.1
    steps: PositiveInt = 1
    weight: NonNegativeFloat = 1.0
    on: Literal["support", "query", "both"] = "support"

    def problem(self, learner: Learner, meta: Params, task: Task, loop: InnerLoop) -> InnerProblem:
        """`of`'s, with the term added."""
        plain = self.of.problem(learner, meta, task, loop)

        def disturbed(theta: Params, phi: Params, batch: Batch) -> Tensor:
            return self.weight * self.disturbed_loss(learner, self.bind(theta, phi), batch)

        changed = plain
        if self.on in ("support", "both"):
            changed = replace(
                changed,
                support_loss=lambda theta, phi, k: plain.support_loss(theta, phi, k)
                + disturbed(theta, phi, task.support),
            )
        if self.on in ("query", "both"):
            changed = replace(
                changed,
                query_loss=lambda theta, phi: plain.query_loss(theta, phi) + disturbed(theta, phi, task.query),
            )
        return changed

    def disturbed_loss(self, learner: Learner, params: Params, batch: Batch) -> Tensor:
        """Mean cross-entropy on disturbed features, differentiable in `params` through the disturbance."""
        assert batch.targets is not None
        features = learner.features(params, batch)
        if not features.requires_grad:  # nothing is differentiated, but the disturbance needs its own gradient
            features = features.detach().requires_grad_()
        moved = torch.zeros_like(features)
        length = self.radius if self.steps == 1 else 2 * self.radius / self.steps
        with torch.enable_grad():
            for _ in range(self.steps):
                loss = F.cross_entropy(learner.scores(params, features + moved), batch.targets, reduction="sum")
                (uphill,) = torch.autograd.grad(loss, features, create_graph=True)
                moved = _inside(moved + length * uphill / _length(uphill), self.radius)
            return F.cross_entropy(learner.scores(params, features + moved), batch.targets)


def _length(rows: Tensor) -> Tensor:
    return (rows.square().sum(-1, keepdim=True) + SMALL).sqrt()


def _inside(rows: Tensor, radius: float) -> Tensor:
    """Rows (B, D) no longer than `radius`; those that are, cut to it."""
    return rows * (radius / _length(rows)).clamp(max=1.0)
