"""A meta-objective: what is learned, what of it adapts, where a task starts, and what is asked afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from metacl.adaptation import InnerLoop
from metacl.errors import ConfigError
from metacl.learners.base import STEP_SIZE, Learner, Params, Task
from metacl.metagradients import InnerProblem
from metacl.metagradients.traced import TracedProblem
from metacl.registry import Component, Registry


class MetaObjective(Component):
    """Base of all meta-objectives; a new one overrides what differs. The defaults are MAML's.

    Losses get `params`: all parameters the learner needs, the adapted θ over the merely learned φ.
    """

    fixed_ways: ClassVar[bool] = False
    """Whether what is learned fits one number of classes only."""

    def learned(self, learner: Learner, ways: int) -> Params:
        """Initial values of what is learned, step sizes excepted. Default: the learner's adaptable parameters."""
        return dict(learner.initial)

    def adaptable(self, name: str) -> bool:
        """Whether the inner loop adapts the learned tensor `name`. Default: all."""
        return True

    def start(self, learner: Learner, meta: Params, task: Task) -> Params:
        """θ_0, differentiable in `meta`. Default: the adaptable learned tensors as they are."""
        return {name: meta[name] for name in self.learned_names(meta) if self.adaptable(name)}

    def inner_names(self, learned: Params) -> list[str]:
        """Names of all tensors of θ, known before any task is seen. Default: the adaptable learned ones."""
        return [name for name in learned if self.adaptable(name)]

    def support_loss(self, learner: Learner, params: Params, task: Task, step: int) -> Tensor:
        """What inner step `step` descends. Default: the learner's loss on the support."""
        return learner.loss(params, task.support)

    def query_loss(self, learner: Learner, params: Params, task: Task) -> Tensor:
        """What is asked of the adapted parameters. Default: the learner's loss on the query."""
        return learner.loss(params, task.query)

    @staticmethod
    def learned_names(meta: Params) -> list[str]:
        """The names in `meta` that are not step sizes."""
        return [name for name in meta if not name.startswith(STEP_SIZE)]

    def meta_parameters(self, learner: Learner, loop: InnerLoop, ways: int) -> Params:
        """Initial values of everything the outer loop trains: what is learned, and the learned step sizes.

        Raises `ConfigError` if nothing adapts, or if step sizes need a shape that is not known.
        """
        learned = self.learned(learner, ways)
        if not self.inner_names(learned):
            raise ConfigError(
                f"objective: {self.registered_name or type(self).__name__} finds nothing that adapts among "
                f"{', '.join(learned)}. Name the learner's head, or set objective=maml."
            )
        # What adapts without being learned (a head made from the support) may have another shape in every task.
        shapes = {name: learned[name].shape if name in learned else None for name in self.inner_names(learned)}
        return {**learned, **loop.step_size.initial(shapes, loop.steps)}

    def problem(self, learner: Learner, meta: Params, task: Task, loop: InnerLoop) -> InnerProblem:
        """One task as the estimator sees it."""

        def all_params(theta: Params, phi: Params) -> Params:
            return {**{name: phi[name] for name in self.learned_names(phi)}, **theta}

        return InnerProblem(
            meta=meta,
            start=lambda phi: self.start(learner, phi, task),
            support_loss=lambda theta, phi, k: self.support_loss(learner, all_params(theta, phi), task, k),
            query_loss=lambda theta, phi: self.query_loss(learner, all_params(theta, phi), task),
            loop=loop,
            traced=self._traced(learner, meta, task, all_params),
            data=task.tensors(),
        )

    def _traced(
        self, learner: Learner, meta: Params, task: Task, all_params: Callable[[Params, Params], Params]
    ) -> TracedProblem:
        """The problem's functions for estimators that compile, the same object for all tasks of one structure.

        A support loss of an objective's own may depend on the step and is left out; so is a start that only copies.
        """
        key = (self, tuple(meta), task.structure())
        if key not in learner.traced:
            kind = type(self)
            learner.traced[key] = TracedProblem(
                inner=self.inner_names({name: meta[name] for name in self.learned_names(meta)}),
                start=None
                if kind.start is MetaObjective.start
                else lambda phi, data: self.start(learner, phi, task.with_tensors(data)),
                support_loss=None
                if kind.support_loss is not MetaObjective.support_loss
                else lambda theta, phi, data: learner.loss(all_params(theta, phi), task.with_tensors(data).support),
                query_loss=lambda theta, phi, data: self.query_loss(
                    learner, all_params(theta, phi), task.with_tensors(data)
                ),
            )
        return learner.traced[key]


OBJECTIVES: Registry[MetaObjective] = Registry("meta-objective", "objective")
