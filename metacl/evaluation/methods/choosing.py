"""Which methods an evaluation compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metacl.config import RunConfig
from metacl.errors import ConfigError
from metacl.evaluation.methods.base import METHODS, AdaptationMethod
from metacl.evaluation.methods.fine_tuning import ADAPTERS, FineTuning
from metacl.evaluation.methods.inner_steps import InnerSteps, MetaLearned, Pretrained
from metacl.evaluation.methods.prototypes import FrozenPrototypes

Options = Mapping[str, Mapping[str, Any]]
"""Options of methods, by the method's name."""


def default_methods(steps: Sequence[int], features: bool = True) -> list[AdaptationMethod]:
    """What a meta-learned initialization has to beat, and itself. Prototypes need a learner with `features`."""
    steps = tuple(steps)
    trained = tuple(step for step in steps if step > 0)
    return [
        *([FrozenPrototypes()] if features else []),
        *([Pretrained(steps=trained)] if trained else []),
        MetaLearned(steps=steps),
    ]


def chosen_methods(
    names: Sequence[str], steps: Sequence[int], config: RunConfig, options: Options | None = None
) -> list[AdaptationMethod]:
    """Methods by name, and always the meta-learned rows; "all" for every one that this run's learner and data allow.

    Raises
    ------
    ConfigError
        An unknown name or option, or a method that asks for what is not there.
    DataError
        A file that an option names cannot be read.
    """
    options = options or {}
    everything = tuple(names) == ("all",)
    chosen = METHODS.names() if everything else list(dict.fromkeys(names))
    for name in options:
        METHODS.get(name)
        if name not in chosen or name == "meta_learned":
            raise ConfigError(f"--method-option {name}: it is not among --methods. Add {name} to them.")
    trained = tuple(step for step in steps if step > 0)
    found: list[AdaptationMethod] = []
    for name in chosen:
        if name == "pretrained" and not trained and not everything:
            raise ConfigError("--methods pretrained: it takes inner steps. Give --steps with a number above 0.")
        if name == "meta_learned" or (name == "pretrained" and not trained):
            continue
        kind, given = METHODS.get(name), dict(options.get(name, {}))
        if issubclass(kind, InnerSteps):
            given.setdefault("steps", trained if name == "pretrained" else tuple(steps))
        missing = [field for field, about in kind.model_fields.items() if about.is_required() and field not in given]
        if missing and everything:
            continue
        if missing:
            raise ConfigError(
                f"--methods {name}: it needs {missing[0]}. Give --method-option {name}.{missing[0]}=runs/a, or of "
                f"several [runs/a, runs/b]."
            )
        method = METHODS.build({"name": name, **given})
        obstacle = method.obstacle(config)
        if obstacle is None:
            found += _variants(method, given)
        elif not everything:
            raise ConfigError(f"--methods {name}: {obstacle}")
    return [*found, MetaLearned(steps=tuple(steps))]


def _variants(method: AdaptationMethod, given: Mapping[str, Any]) -> list[AdaptationMethod]:
    """Fine-tuning is a row for each thing that can be tuned, unless one is named."""
    if isinstance(method, FineTuning) and "what" not in given:
        return [method.model_copy(update={"what": what}) for what in ADAPTERS]
    return [method]
