"""Reptile: move the start towards where the inner loop ended (Nichol et al. 2018, algorithm 1 and eq. 27).

The query loss is reported and never differentiated. What is learned but does not adapt (ANIL's body) and
learned step sizes have no displacement, so they get zeros and stay as they are.

The displacement is the sum of the steps taken. A difference of the end points would be of their rounding: where steps
are small beside the numbers they change, few of its digits hold, and other ones on two ranks than on one.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from metacl.learners.base import Params
from metacl.metagradients.base import (
    ESTIMATORS,
    InnerProblem,
    MetaGradient,
    MetaGradientResult,
    adapt,
    plain_gradient,
    through_start,
)


@ESTIMATORS.register("reptile")
class Reptile(MetaGradient):
    """The displacement θ_0 − θ_K in place of a gradient; no derivative of the query loss."""

    order: ClassVar[int] = 1
    exact: ClassVar[bool] = False
    needs_double_backward: ClassVar[bool] = False
    sharding_stages: ClassVar[frozenset[int]] = frozenset({0, 1, 2, 3})
    takes_parts: ClassVar[bool] = True
    side_by_side: ClassVar[bool] = True
    sees_path: ClassVar[bool] = False

    def estimate(self, problem: InnerProblem) -> MetaGradientResult:
        """See `MetaGradient.estimate`. A start made from several φ shares the displacement by its derivative."""
        start = problem.start(problem.meta)
        displacement = {name: torch.zeros_like(tensor) for name, tensor in start.items()}

        def add(moved: Params) -> None:
            for name, tensor in moved.items():
                displacement[name].add_(tensor)

        with torch.no_grad():
            end = adapt(problem, plain_gradient(problem), start, add)
            query_loss = problem.query_loss(end.theta, problem.meta)
        return MetaGradientResult(through_start(start, displacement, problem.meta), float(query_loss), end.losses)
