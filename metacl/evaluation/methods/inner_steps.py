"""The run's own inner loop, from the pretrained start or from the learned one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Annotated, ClassVar

import torch
from pydantic import Field, NonNegativeInt

from metacl.coordination.flat import Flat
from metacl.evaluation.methods.base import (
    META_LEARNED,
    METHODS,
    PRETRAINED,
    AdaptationMethod,
    Predictor,
    Row,
    Scene,
)
from metacl.learners.base import Params
from metacl.metagradients import plain_gradient, trajectory

Steps = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]


class InnerSteps(AdaptationMethod):
    """The steps of a config's inner loop, with predictions after some of them.

    steps : after how many.
    """

    steps: Steps
    reads_batches: ClassVar[bool] = True

    @property
    @abstractmethod
    def label(self) -> str:
        """The rows' method."""

    @abstractmethod
    def start(self, scene: Scene) -> Flat:
        """The parameters to begin from."""

    def rows(self) -> list[Row]:
        """One a number of steps."""
        return [Row(self.label, step) for step in sorted(set(self.steps))]

    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """A predictor after every number of steps asked for; its scores are logits."""
        config = scene.worker.config
        params: Params = scene.worker.parameters(self.start(scene))
        loop = config.inner.model_copy(update={"steps": max(self.steps)})
        problem = config.objective.problem(scene.worker.learner, params, scene.task, loop)
        with torch.no_grad():
            theta = problem.start(params)
        for step, state in enumerate(trajectory(problem, plain_gradient(problem), theta)):
            if step in self.steps:
                with torch.no_grad():
                    bound = config.objective.bind(state.theta, params)
                yield Row(self.label, step), partial(scene.outputs, bound)


@METHODS.register("meta_learned")
class MetaLearned(InnerSteps):
    """The inner loop from the learned initialization, with the learned step sizes."""

    @property
    def label(self) -> str:
        """What was trained."""
        return META_LEARNED

    def start(self, scene: Scene) -> Flat:
        """What was learned."""
        return scene.meta


@METHODS.register("pretrained")
class Pretrained(InnerSteps):
    """The same inner loop from the pretrained model, with the config's step sizes."""

    @property
    def label(self) -> str:
        """What training began from."""
        return PRETRAINED

    def start(self, scene: Scene) -> Flat:
        """The parameters before training."""
        return scene.worker.layout.flatten(scene.worker.initial)
