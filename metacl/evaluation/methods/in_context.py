"""A language model that is asked, without any training: the class names alone, or examples in its prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch

from metacl.evaluation.methods.base import METHODS, AdaptationMethod, Examples, Predictor, Row, Scene
from metacl.learners.base import Params
from metacl.learners.label_words import LabelWords

BETWEEN = "\n\n"
"""Stands between the examples of a prompt."""


@METHODS.register("zero_shot_prompt")
class ZeroShotPrompt(AdaptationMethod):
    """How probable each class's name is after the text, by the pretrained language model; the support is not read."""

    needs_language_model: ClassVar[bool] = True
    needs_class_names: ClassVar[bool] = True

    def rows(self) -> list[Row]:
        """One."""
        return [Row("zero-shot prompt", None)]

    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """Nothing is done before a text is asked for."""
        learner, params = asked(scene)
        (row,) = self.rows()
        yield row, lambda examples: learner.class_scores(params, examples.inputs, scene.class_names)


@METHODS.register("in_context")
class InContext(AdaptationMethod):
    """The support stands in the prompt, the classes in turn, as much as the model has positions for.

    Brown et al. 2020, "Language Models are Few-Shot Learners", sec. 2: each example with its class's name behind it.
    Where not all fit, the first ones are left out.
    """

    fills_prompts: ClassVar[bool] = True
    needs_class_names: ClassVar[bool] = True

    def rows(self) -> list[Row]:
        """One."""
        return [Row("in-context examples", None)]

    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """The examples are written down."""
        learner, params = asked(scene)
        shown = in_turn(shown_examples(learner, scene), scene.targets.tolist())

        def scores(examples: Examples) -> torch.Tensor:
            prompts = [prompt(learner, shown, text, scene.class_names) for text in examples.inputs]
            return learner.class_scores(params, prompts, scene.class_names)

        (row,) = self.rows()
        yield row, scores


def asked(scene: Scene) -> tuple[LabelWords, Params]:
    """The pretrained language model, for prompts as long as it takes, and its parameters."""
    learner = scene.worker.learner
    assert isinstance(learner, LabelWords), "a method that needs a language model is offered to no other"
    learner = learner.without_prompt().with_long_texts()
    return learner, {name: t.to(learner.device) for name, t in scene.worker.initial.items()}


def shown_examples(learner: LabelWords, scene: Scene) -> list[str]:
    """The support's texts with their labels, in its order."""
    return learner.labelled(scene.support.inputs, scene.targets.tolist(), scene.class_names)


def prompt(learner: LabelWords, shown: Sequence[str], text: str, names: Sequence[str]) -> str:
    """What stands before `text` and the text; the first of `shown` are left out until it fits."""
    for first in range(len(shown)):
        whole = BETWEEN.join([*shown[first:], text])
        if learner.fits(whole, names):
            return whole
    return text


def in_turn(shown: Sequence[str], labels: Sequence[int]) -> list[str]:
    """One of each class, then the next of each, so that what is left out is of all classes."""
    met: dict[int, int] = {}
    rounds = []
    for place, label in enumerate(labels):
        met[label] = met.get(label, 0) + 1
        rounds.append((met[label], place))
    return [shown[place] for _, place in sorted(rounds)]
