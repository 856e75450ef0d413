"""A meta-objective: what is learned, what of it adapts, where a task starts, and what is asked afterwards."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from metacl.adaptation import InnerLoop
from metacl.errors import ConfigError
from metacl.learners.base import STEP_SIZE, Batch, Learner, Params, Task
from metacl.metagradients import InnerProblem
from metacl.metagradients.traced import TracedProblem
from metacl.registry import Component, Registry
from metacl.tasks import EpisodeShape

OF_A_PROBLEM = frozenset({"problem", "start", "bind", "loss", "support_loss", "query_loss", "loss_along"})
"""The functions that make the problem which an estimator may see traced."""


class MetaObjective(Component):
    """Base of all meta-objectives; a new one overrides what differs. The defaults are MAML's.

    Losses get `params`: what `bind` makes of the adapted θ and the learned φ.
    """

    fixed_ways: ClassVar[bool] = False
    """Whether what is learned fits one number of classes only."""

    pure: ClassVar[bool] = True
    """Whether all it computes depends on the meta-parameters and the task's tensors alone: not on the inner step, the
    task's address, random numbers or other Python state. Only then is it compiled, or run for several tasks side by
    side. A class that overrides a function of the problem is taken for impure unless it says `pure` itself."""

    asks_along: ClassVar[bool] = False
    """Whether `loss_along` asks anything on the way, which not every estimator sees."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = [kind for kind in cls.__mro__ if kind not in MetaObjective.__mro__]
        if "pure" not in cls.__dict__:
            cls.pure = all(kind.__dict__.get("pure") or OF_A_PROBLEM.isdisjoint(kind.__dict__) for kind in own)

    def check_fits(self, episodes: EpisodeShape, loop: InnerLoop) -> None:
        """Raise `ConfigError` if it cannot be asked of such episodes in so many steps. Called when a config is read."""

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

    def bind(self, theta: Params, phi: Params) -> Params:
        """What the learner is given: all the tensors it knows, from θ and φ. Default: those of θ over those of φ."""
        return {**{name: phi[name] for name in self.learned_names(phi)}, **theta}

    def outputs(self, learner: Learner, params: Params, batch: Batch) -> Tensor:
        """What is predicted, in training and afterwards. Default: what the learner predicts."""
        return learner.outputs(params, batch)

    def loss(self, learner: Learner, params: Params, batch: Batch) -> Tensor:
        """The loss on a batch that `support_loss` and `query_loss` are made of. Default: the learner's."""
        return learner.loss(params, batch)

    def support_loss(self, learner: Learner, params: Params, task: Task, step: int) -> Tensor:
        """What inner step `step` descends. Default: the loss on the support."""
        return self.loss(learner, params, task.support)

    def query_loss(self, learner: Learner, params: Params, task: Task) -> Tensor:
        """What is asked of the adapted parameters. Default: the loss on the query."""
        return self.loss(learner, params, task.query)

    def loss_along(self, learner: Learner, params: Params, task: Task, step: int) -> Tensor | None:
        """What is asked on the way, of θ_`step` before inner step `step`, and added to the query loss.

        Default: nothing, None. An objective that overrides it sets `asks_along`.
        """
        return None

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
        return {**learned, **loop.initial(shapes)}

    def problem(self, learner: Learner, meta: Params, task: Task, loop: InnerLoop) -> InnerProblem:
        """One task as the estimator sees it."""
        along = None
        if self.asks_along:

            def along(theta: Params, phi: Params, k: int) -> Tensor | None:
                return self.loss_along(learner, self.bind(theta, phi), task, k)

        return InnerProblem(
            meta=meta,
            start=lambda phi: self.start(learner, phi, task),
            support_loss=lambda theta, phi, k: self.support_loss(learner, self.bind(theta, phi), task, k),
            query_loss=lambda theta, phi: self.query_loss(learner, self.bind(theta, phi), task),
            loop=loop,
            traced=self._traced(learner, meta, task) if self.pure else None,
            data=task.tensors(),
            along=along,
            outer_step=0 if task.address is None else task.address.step,
            partition=learner.partition,
        )

    def _traced(self, learner: Learner, meta: Params, task: Task) -> TracedProblem:
        """The problem's functions for estimators that compile, the same object for all tasks of one structure."""
        training = learner.module is not None and learner.module.training
        key = (type(self), repr(self), tuple(meta), task.structure(), training)
        if key not in learner.traced:
            # Of the task only its structure is kept; its tensors are another task's from call to call.
            like = task.with_tensors([tensor.to("meta") for tensor in task.tensors()])
            inner = self.inner_names({name: meta[name] for name in self.learned_names(meta)})
            learner.traced[key] = TracedProblem(
                inner=inner,
                start=lambda phi, data: self.start(learner, phi, like.with_tensors(data)),
                support_loss=lambda theta, phi, data: self.support_loss(
                    learner, self.bind(theta, phi), like.with_tensors(data), 0
                ),
                query_loss=lambda theta, phi, data: self.query_loss(
                    learner, self.bind(theta, phi), like.with_tensors(data)
                ),
                copies_start=type(self).start is MetaObjective.start,
            )
        return learner.traced[key]


OBJECTIVES: Registry[MetaObjective] = Registry("meta-objective", "objective")
