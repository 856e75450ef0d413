"""The baseline that is only asked: what the names of the classes say, and examples in a language model's prompt."""

from __future__ import annotations

from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
from pydantic import NonNegativeInt, PositiveFloat
from torch import Tensor

from metacl.continual.experience import Address, Stream
from metacl.continual.memory import Policy
from metacl.continual.model import Model
from metacl.continual.moment import Moment
from metacl.continual.strategies.base import STRATEGIES, State, Strategy, stored
from metacl.continual.strategies.lwf import needs_classes
from metacl.continual.strategies.replay import remembered
from metacl.continual.strategies.start_features import features_of_test, needs_features
from metacl.errors import ConfigError
from metacl.evaluation.methods.in_context import in_turn, prompt
from metacl.learners.base import Batch, Params
from metacl.learners.gate import nearness
from metacl.learners.label_words import in_words
from metacl.learners.named_classes import NamedClasses


@STRATEGIES.register("prompt_only")
class PromptOnly(Strategy):
    """The start is asked by the names of the classes. Nothing is trained.

    A text classifier scores the cosine of a text's features with those of each name, divided by `temperature`. A causal
    language model scores how probable each name is after the text; it learns no class stream in any other way.

    examples : M, of a memory, which all stand in the language model's prompt with the names of their classes, the
    classes in turn (Brown et al. 2020, "Language Models are Few-Shot Learners", sec. 2); where not all fit the first
    are left out. 0 (the default) for none. policy : which ones the memory keeps, as `replay` has it.
    """

    asks_by_name: ClassVar[bool] = True
    examples: NonNegativeInt = 0
    policy: Policy = "class_balanced"
    temperature: PositiveFloat = 0.1

    def check(self, model: Model, stream: Stream) -> None:
        """Classes with names for a model of texts; examples need a prompt."""
        needs_classes("prompt_only", model)
        if isinstance(model.learner, NamedClasses):
            return
        needs_features("prompt_only", model)
        if not isinstance(stream.experiences[0].train.inputs[0], str):
            raise ConfigError(
                "strategies: prompt_only reads names of classes, and this stream is no text. Leave it out."
            )
        if self.examples:
            raise ConfigError(
                f"strategies: prompt_only with examples={self.examples} writes them into a prompt, and a "
                f"{type(model.learner).__name__} has none. Set examples=0, take retrieval, or set learner=causal_lm."
            )

    def training_set(self, moment: Moment, addresses: list[Address], state: State) -> list[Address]:
        """None."""
        return []

    def end(self, moment: Moment, params: Params, addresses: list[Address], state: State) -> tuple[Params, State]:
        """The experience's examples are offered to the memory, if there is one."""
        if not self.examples:
            return params, state
        own = moment.pool.stream.train_addresses(moment.experience)
        return params, remembered(moment, self.policy, self.examples, own, state, moment.random())

    def predict(self, moment: Moment, params: Params, batch: Batch, state: State) -> Tensor | None:
        """Before the first experience, too."""
        learner = moment.model.learner
        if not isinstance(learner, NamedClasses):
            return nearness(features_of_test(moment, batch), _features_of_names(moment)) / self.temperature
        stream, model = moment.pool.stream, learner.model
        memory = stored(state)
        texts = [stream.experiences[k].train.inputs[place] for k, place in memory]
        labels = [stream.label(address) for address in memory]
        shown = in_turn(model.labelled(texts, labels, learner.names), labels)
        prompts = [prompt(model, shown, text, learner.names) for text in learner.texts(batch)]
        return model.class_scores(moment.model.bind(moment.start), prompts, learner.names)


_NAMES: WeakKeyDictionary[Model, Tensor] = WeakKeyDictionary()


def _features_of_names(moment: Moment) -> Tensor:
    """(N, D), by the start, once a model: a run's start is always the same."""
    if moment.model not in _NAMES:
        learner = moment.model.learner
        names = learner.encode([in_words(name) for name in moment.pool.stream.class_names], None)
        with torch.no_grad():
            _NAMES[moment.model] = moment.model.features(moment.start, names)
    return _NAMES[moment.model]
