"""First-order MAML: the inner gradients are taken as constants (Finn et al. 2017, sec. 5.2; Nichol et al. 2018).

d θ_K / d θ_0 is the identity; the step sizes and a differentiable start still get their (first-order) gradient.
"""

from __future__ import annotations

from typing import ClassVar

from metacl.metagradients.base import (
    ESTIMATORS,
    InnerProblem,
    MetaGradient,
    MetaGradientResult,
    plain_gradient,
    through_the_walk,
)


@ESTIMATORS.register("first_order")
class FirstOrder(MetaGradient):
    """First order (FOMAML); biased, cheap, needs no double backward."""

    order: ClassVar[int] = 1
    exact: ClassVar[bool] = False
    needs_double_backward: ClassVar[bool] = False
    sharding_stages: ClassVar[frozenset[int]] = frozenset({0, 1, 2, 3})
    takes_parts: ClassVar[bool] = True
    side_by_side: ClassVar[bool] = True

    def estimate(self, problem: InnerProblem) -> MetaGradientResult:
        """See `MetaGradient.estimate`."""
        return through_the_walk(problem, plain_gradient(problem))
