"""Which methods an evaluation compares."""

from __future__ import annotations

from collections.abc import Sequence

from metacl.config import RunConfig
from metacl.errors import ConfigError
from metacl.evaluation.methods.base import METHODS, AdaptationMethod
from metacl.evaluation.methods.fine_tuning import ADAPTERS, FineTuning
from metacl.evaluation.methods.inner_steps import MetaLearned, Pretrained
from metacl.evaluation.methods.prototypes import FrozenPrototypes
from metacl.learners import CausalLanguageModelConfig
from metacl.learners.transformer import TransformerConfig


def default_methods(steps: Sequence[int], features: bool = True) -> list[AdaptationMethod]:
    """What a meta-learned initialization has to beat, and itself. Prototypes need a learner with `features`."""
    steps = tuple(steps)
    trained = tuple(step for step in steps if step > 0)
    return [
        *([FrozenPrototypes()] if features else []),
        *([Pretrained(steps=trained)] if trained else []),
        MetaLearned(steps=steps),
    ]


def chosen_methods(names: Sequence[str], steps: Sequence[int], config: RunConfig) -> list[AdaptationMethod]:
    """Methods by name, and always the meta-learned rows; "all" for every one that this run's learner and data allow.

    Raises `ConfigError` for an unknown name, or one that asks for what is not there.
    """
    trained = tuple(step for step in steps if step > 0)
    found: list[AdaptationMethod] = []
    for name in METHODS.names() if tuple(names) == ("all",) else dict.fromkeys(names):
        if name == "pretrained" and not trained and tuple(names) != ("all",):
            raise ConfigError("--methods pretrained: it takes inner steps. Give --steps with a number above 0.")
        if name == "meta_learned" or (name == "pretrained" and not trained):
            continue
        method = METHODS.build({"name": name, **({"steps": trained} if name == "pretrained" else {})})
        obstacle = _obstacle(method, config)
        if obstacle is None:
            found += _variants(method)
        elif tuple(names) != ("all",):
            raise ConfigError(f"--methods {name}: {obstacle}")
    return [*found, MetaLearned(steps=tuple(steps))]


def _obstacle(method: AdaptationMethod, config: RunConfig) -> str | None:
    if method.needs_features and not config.learner.has_features:
        return f"it reads feature vectors, and learner {config.learner.registered_name!r} gives none."
    if method.needs_class_names and config.data.gives != "text":
        return f"it reads the names of classes, and data {config.data.registered_name!r} has none."
    if method.needs_language_model and config.learner.classifies:
        return f"it asks a language model, and learner {config.learner.registered_name!r} is none."
    if method.fills_prompts and not isinstance(config.learner, CausalLanguageModelConfig):
        return (
            f"it fills the prompt of a causal_lm, and learner {config.learner.registered_name!r} is none."
        )
    if isinstance(method, FineTuning) and not isinstance(config.learner, TransformerConfig):
        return f"it tunes a transformer, and learner {config.learner.registered_name!r} is none."
    return None


def _variants(method: AdaptationMethod) -> list[AdaptationMethod]:
    """Fine-tuning is a row for each thing that can be tuned."""
    if isinstance(method, FineTuning):
        return [method.model_copy(update={"what": what}) for what in ADAPTERS]
    return [method]
