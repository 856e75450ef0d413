"""Derivative-order annealing (Antoniou et al. 2019, "How to train your MAML", sec. 4): first order, then exact."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import NonNegativeInt

from metacl.adaptation import InnerLoop
from metacl.learners.base import Learner
from metacl.metagradients.base import ESTIMATORS, InnerProblem, MetaGradient, MetaGradientResult
from metacl.metagradients.first_order import FirstOrder
from metacl.metagradients.reverse import Reverse
from metacl.registry import chosen_from


@ESTIMATORS.register("annealed_order")
class AnnealedOrder(MetaGradient):
    """First order for the first outer steps, which is cheap and never explodes, and `then` another estimator."""

    order: ClassVar[int] = 2
    exact: ClassVar[bool] = False

    first_order_steps: NonNegativeInt = 100
    then: Annotated[MetaGradient, chosen_from(ESTIMATORS)] = Reverse()

    @property
    def needs_double_backward(self) -> bool:  # type: ignore[override]
        """As `then`."""
        return self.then.needs_double_backward

    @property
    def sharding_stages(self) -> frozenset[int]:  # type: ignore[override]
        """As `then`."""
        return self.then.sharding_stages

    @property
    def takes_parts(self) -> bool:  # type: ignore[override]
        """What the later estimator says; first order does."""
        return self.then.takes_parts

    @property
    def sees_path(self) -> bool:  # type: ignore[override]
        """As `then`."""
        return self.then.sees_path

    @property
    def wants_few_shapes(self) -> bool:
        """As the later one."""
        return self.then.wants_few_shapes

    def estimate(self, problem: InnerProblem) -> MetaGradientResult:
        """See `MetaGradient.estimate`."""
        first = problem.outer_step < self.first_order_steps
        return (FirstOrder() if first else self.then).estimate(problem)

    def uncompiled(self) -> AnnealedOrder:
        """With `then` uncompiled."""
        return self.model_copy(update={"then": self.then.uncompiled()})

    def check_loop(self, loop: InnerLoop) -> None:
        """As the later one."""
        self.then.check_loop(loop)

    def check_learner(self, learner: Learner) -> None:
        """As the later one."""
        self.then.check_learner(learner)
