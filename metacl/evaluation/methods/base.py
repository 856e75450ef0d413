"""A way to adapt to an episode's support set, and what it may see on the way.

A method never sees the query's labels: a scene has none. What it yields answers any examples, so that the same
object serves an evaluation and a person's own texts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from metacl.config import RunConfig
from metacl.coordination.flat import Flat
from metacl.coordination.worker import Worker
from metacl.evaluation.examples import Examples
from metacl.evaluation.frozen_features import FrozenFeatures, KeptFeatures
from metacl.learners import CausalLanguageModelConfig
from metacl.learners.base import Params, Task
from metacl.learners.label_words import LabelWords
from metacl.objectives import MetaObjective
from metacl.registry import Component, Registry
from metacl.tasks import ArrayEpisode, Episode

FROZEN, PRETRAINED, META_LEARNED = "frozen prototypes", "pretrained", "meta-learned"
"""The names that three rows of the closing table go by."""


@dataclass(frozen=True)
class Row:
    """One line of a comparison: a method, and the inner steps it took (None: it takes none)."""

    method: str
    steps: int | None


Predictor = Callable[[Examples], Tensor]
"""Scores (B, N) of B examples, whose softmax is the probability of each class."""


class Scene:
    """What a method adapts in.

    Attributes
    ----------
    worker : Worker
    meta : (P,) the learned parameters
    support : Examples
        With labels.
    query : Examples
        Without: an objective may adapt to its inputs.
    class_names : tuple of str
        Where the classes have names; else ().
    ways : N
    frozen : FrozenFeatures
        The pretrained features of examples, each text's computed once a worker.
    """

    def __init__(self, worker: Worker, meta: Flat, episode: Episode | ArrayEpisode) -> None:
        self.worker = worker
        self.meta = meta
        self.address = episode.address
        self.frozen = KeptFeatures.by(worker).pretrained
        self.class_names: tuple[str, ...] = ()
        support: tuple[Any, Any]
        query: Any
        if isinstance(episode, Episode):
            self.class_names, self.ways = episode.class_names, len(episode.class_names)
            support, query = (episode.support_texts, episode.support_labels), episode.query_texts
        else:
            self.ways, support, query = episode.ways, episode.support, episode.query[0]
        self.support = Examples(worker.learner, *support)
        self.query = Examples(worker.learner, query, None)

    @cached_property
    def learned(self) -> FrozenFeatures:
        """The features of what was learned, before any inner step; each text's computed once a worker."""
        return KeptFeatures.by(self.worker).learned(self.worker, self.meta)

    def forget_features(self) -> None:
        """Compute features anew from now on, of this scene alone."""
        self.frozen = FrozenFeatures.pretrained(self.worker)
        self.learned = FrozenFeatures.learned(self.worker, self.meta)

    @cached_property
    def task(self) -> Task:
        """The episode encoded by the run's learner, when first asked for; the query without targets.

        A language model reads a text with its label, so of the query, whose labels nobody knows, it reads nothing.
        """
        learner = self.worker.learner
        if isinstance(learner, LabelWords):
            shown = learner.encode(learner.labelled(self.support.inputs, self.targets.tolist(), self.class_names), None)
            return Task(self.ways, shown, shown, self.address)
        return Task(self.ways, self.support.batch, self.query.batch, self.address)

    def outputs(self, objective: MetaObjective, bound: Params, examples: Examples) -> Tensor:
        """Scores (B, N) that the run's learner gives with these parameters of an objective."""
        learner = self.worker.learner
        if isinstance(learner, LabelWords):
            return learner.class_scores(bound, examples.inputs, self.class_names)
        return objective.outputs(learner, bound, examples.batch)

    @property
    def targets(self) -> Tensor:
        """Class positions (B,) of the support."""
        return torch.as_tensor(self.support.labels, device=self.worker.learner.device)


class AdaptationMethod(Component):
    """Base of all methods. Plain data, since it travels to the workers; registered by name for ``--methods``."""

    needs_features: ClassVar[bool] = False
    """Whether it needs a learner that gives feature vectors."""
    reads_features: ClassVar[bool] = False
    """Whether it reads pretrained feature vectors where the learner gives some."""
    needs_class_names: ClassVar[bool] = False
    """Whether it needs classes with names."""
    needs_language_model: ClassVar[bool] = False
    """Whether it asks a language model."""
    fills_prompts: ClassVar[bool] = False
    """Whether it writes examples into the prompt of a causal language model."""
    reads_batches: ClassVar[bool] = False
    """Whether it reads the scene's task, which costs a pass through the frozen layers."""

    def candidates(self) -> list[AdaptationMethod]:
        """What to choose from by episodes of the validation classes, before it is compared. Default: only this."""
        return [self]

    def chosen_option(self) -> tuple[str, float] | None:
        """The option that its `candidates` differ in, and its value here. Default: none."""
        return None

    def obstacle(self, config: RunConfig) -> str | None:
        """Why it cannot be run here, as a sentence; None if it can. Default: what it needs is not there."""
        learner, data = config.learner, config.data
        if self.needs_features and not learner.has_features:
            return f"it reads feature vectors, and learner {learner.registered_name!r} gives none."
        if self.needs_class_names and data.gives != "text":
            return f"it reads the names of classes, and data {data.registered_name!r} has none."
        if self.needs_language_model and learner.classifies:
            return f"it asks a language model, and learner {learner.registered_name!r} is none."
        if self.fills_prompts and not isinstance(learner, CausalLanguageModelConfig):
            return f"it fills the prompt of a causal_lm, and learner {learner.registered_name!r} is none."
        return None

    @abstractmethod
    def rows(self) -> list[Row]:
        """The rows it fills, in order."""

    def prepare(self, scene: Scene) -> None:
        """Make what serves other episodes, too, so that it is no part of this one's time. Default: there is nothing."""

    @abstractmethod
    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """A predictor a row, as adapting goes on. One is valid until the next is asked for.

        Raises `InnerLoopDiverged` where numbers stop being finite.
        """


METHODS: Registry[AdaptationMethod] = Registry("adaptation method", "--methods")
