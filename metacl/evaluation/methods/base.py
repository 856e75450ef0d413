"""A way to adapt to an episode's support set, and what it may see on the way.

A method never sees the query's labels: a scene's task has none. What it yields answers any examples, so that the same
object serves an evaluation and a person's own texts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from metacl.coordination.flat import Flat
from metacl.coordination.worker import Worker
from metacl.evaluation.frozen_features import FrozenFeatures
from metacl.learners.base import Batch, Task
from metacl.registry import Component, Registry

FROZEN, PRETRAINED, META_LEARNED = "frozen prototypes", "pretrained", "meta-learned"
"""The names that three rows of the closing table go by."""


@dataclass(frozen=True)
class Row:
    """One line of a comparison: a method, and the inner steps it took (None: it takes none)."""

    method: str
    steps: int | None


@dataclass(frozen=True)
class Examples:
    """B examples: as they were read (texts, or arrays), and encoded by the run's learner."""

    inputs: Sequence[Any]
    batch: Batch


Predictor = Callable[[Examples], Tensor]
"""Scores (B, N) of B examples, whose softmax is the probability of each class."""


@dataclass(frozen=True)
class Scene:
    """What a method adapts in.

    meta : the learned parameters. task : the episode encoded by the run's learner, the query without targets (an
    objective may adapt to its inputs). support : its labelled examples. class_names : where the classes have names.
    frozen : the pretrained features of examples, each computed once.
    """

    worker: Worker
    meta: Flat
    task: Task
    support: Examples
    class_names: tuple[str, ...]
    frozen: FrozenFeatures

    @property
    def targets(self) -> Tensor:
        """Class positions (B,) of the support."""
        assert self.support.batch.targets is not None, "a support set is labelled"
        return self.support.batch.targets


class AdaptationMethod(Component):
    """Base of all methods. Plain data, since it travels to the workers; registered by name for ``--methods``."""

    needs_features: ClassVar[bool] = False
    """Whether it needs a learner that gives feature vectors."""
    needs_class_names: ClassVar[bool] = False
    """Whether it needs classes with names."""

    def candidates(self) -> list[AdaptationMethod]:
        """What to choose from by episodes of the validation classes, before it is compared. Default: only this."""
        return [self]

    @abstractmethod
    def rows(self) -> list[Row]:
        """The rows it fills, in order."""

    @abstractmethod
    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """A predictor a row, as adapting goes on. One is valid until the next is asked for.

        Raises `InnerLoopDiverged` where numbers stop being finite.
        """


METHODS: Registry[AdaptationMethod] = Registry("adaptation method", "--methods")
