"""Objectives that change one thing of another objective, whichever it is: ``{name: distilled, of: {name: maml}}``.

A wrapper works on the problem that `of` makes, where losses see θ and φ apart, so wrappers can be wrapped again.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from metacl.adaptation import InnerLoop
from metacl.learners.base import Batch, Learner, Params, Task
from metacl.metagradients import InnerProblem
from metacl.objectives.base import OBJECTIVES, MetaObjective
from metacl.objectives.proto_maml import ProtoMAML
from metacl.registry import chosen_from


class Wrapper(MetaObjective):
    """Does what the objective `of` does; a subclass changes the problem."""

    of: Annotated[MetaObjective, chosen_from(OBJECTIVES)] = ProtoMAML()

    @property
    def fixed_ways(self) -> bool:  # type: ignore[override]
        """As `of`."""
        return self.of.fixed_ways

    @property
    def asks_along(self) -> bool:  # type: ignore[override]
        """As `of`."""
        return self.of.asks_along

    def learned(self, learner: Learner, ways: int) -> Params:
        """As `of`."""
        return self.of.learned(learner, ways)

    def adaptable(self, name: str) -> bool:
        """As `of`."""
        return self.of.adaptable(name)

    def start(self, learner: Learner, meta: Params, task: Task) -> Params:
        """As `of`."""
        return self.of.start(learner, meta, task)

    def inner_names(self, learned: Params) -> list[str]:
        """As `of`."""
        return self.of.inner_names(learned)

    def bind(self, theta: Params, phi: Params) -> Params:
        """As `of`."""
        return self.of.bind(theta, phi)

    def outputs(self, learner: Learner, params: Params, batch: Batch) -> Tensor:
        """As `of`."""
        return self.of.outputs(learner, params, batch)

    def loss(self, learner: Learner, params: Params, batch: Batch) -> Tensor:
        """As `of`."""
        return self.of.loss(learner, params, batch)

    def problem(self, learner: Learner, meta: Params, task: Task, loop: InnerLoop) -> InnerProblem:
        """As `of`; a subclass replaces what it changes."""
        return self.of.problem(learner, meta, task, loop)
