"""Sharpness-aware meta-gradients (Foret et al. 2021, "SAM", eq. 2-3; Abbas et al. 2022, "Sharp-MAML", its variant up).

The gradient is not taken at φ but at φ + ρ g/‖g‖, the worst place within ρ to first order. It is done task by task, as
SAM is done device by device in its paper, so it needs no second round over the meta-batch. Step sizes are not moved.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import PositiveFloat

from metacl.adaptation import InnerLoop
from metacl.learners.base import STEP_SIZE, Learner
from metacl.metagradients.base import ESTIMATORS, InnerProblem, MetaGradient, MetaGradientResult
from metacl.metagradients.reverse import Reverse
from metacl.registry import chosen_from


@ESTIMATORS.register("sharpness_aware")
class SharpnessAware(MetaGradient):
    """The gradient of another estimator `of`, at the worst place within `radius` of φ; twice its cost."""

    order: ClassVar[int] = 2
    exact: ClassVar[bool] = False

    radius: PositiveFloat = 0.05
    of: Annotated[MetaGradient, chosen_from(ESTIMATORS)] = Reverse()

    @property
    def needs_double_backward(self) -> bool:  # type: ignore[override]
        """As `of`."""
        return self.of.needs_double_backward

    @property
    def sharding_stages(self) -> frozenset[int]:  # type: ignore[override]
        """As `of`."""
        return self.of.sharding_stages

    @property
    def sees_path(self) -> bool:  # type: ignore[override]
        """As `of`."""
        return self.of.sees_path

    @property
    def wants_few_shapes(self) -> bool:
        """As `of`."""
        return self.of.wants_few_shapes

    def estimate(self, problem: InnerProblem) -> MetaGradientResult:
        """See `MetaGradient.estimate`. The losses reported are those at φ."""
        here = self.of.estimate(problem)
        climbed = {name: g for name, g in here.gradient.items() if not name.startswith(STEP_SIZE)}
        size = torch.stack([g.double().square().sum() for g in climbed.values()]).sum().sqrt()
        if not size > 0:
            return here
        scale = self.radius / float(size)
        moved = {
            name: (tensor.detach() + scale * climbed[name] if name in climbed else tensor.detach()).requires_grad_()
            for name, tensor in problem.meta.items()
        }
        there = self.of.estimate(replace(problem, meta=moved))
        return replace(here, gradient=there.gradient)

    def uncompiled(self) -> SharpnessAware:
        """With `of` uncompiled."""
        return self.model_copy(update={"of": self.of.uncompiled()})

    def check_loop(self, loop: InnerLoop) -> None:
        """As `of`."""
        self.of.check_loop(loop)

    def check_learner(self, learner: Learner) -> None:
        """As `of`."""
        self.of.check_learner(learner)
