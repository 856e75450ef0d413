"""Which methods an evaluation compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from metacl.config import RunConfig
from metacl.errors import ConfigError
from metacl.evaluation.methods.base import METHODS, AdaptationMethod
from metacl.evaluation.methods.fine_tuning import ADAPTERS, FineTuning
from metacl.evaluation.methods.inner_steps import InnerSteps, MetaLearned, Pretrained
from metacl.evaluation.methods.prototypes import FrozenPrototypes
from metacl.registry import explain, nearest

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
        _method("--method-option", name)
        if name not in chosen or name == "meta_learned":
            raise ConfigError(f"--method-option {name}: it is not among --methods. Add {name} to them.")
    trained = tuple(step for step in steps if step > 0)
    found: list[AdaptationMethod] = []
    for name in chosen:
        if name == "pretrained" and not trained and not everything:
            raise ConfigError("--methods pretrained: it takes inner steps. Give --steps with a number above 0.")
        if name == "meta_learned" or (name == "pretrained" and not trained):
            continue
        kind, given = _method("--methods", name), dict(options.get(name, {}))
        if issubclass(kind, InnerSteps):
            given.setdefault("steps", trained if name == "pretrained" else tuple(steps))
        missing = [field for field, about in kind.model_fields.items() if about.is_required() and field not in given]
        if missing and everything:
            continue
        if missing:
            raise ConfigError(
                f"--methods {name}: it needs {missing[0]}. Give --method-option {name}.{missing[0]}="
                f"{' or '.join(map(str, kind.model_fields[missing[0]].examples or ['…']))}."
            )
        try:
            built = kind.model_validate(given)
        except ValidationError as error:
            raise ConfigError(explain(error, kind, prefix=f"--method-option {name}.")) from None
        for method in _variants(built, given):
            obstacle = method.obstacle(config)
            if obstacle is None:
                found.append(method)
            elif not everything:
                raise ConfigError(f"--methods {name}: {obstacle}")
    return [*found, MetaLearned(steps=tuple(steps))]


def _method(option: str, name: str) -> type[AdaptationMethod]:
    if name not in METHODS.names():
        raise ConfigError(f"{option}: there is no method {name!r}. {nearest(name, METHODS.names())}")
    return METHODS.get(name)


def _variants(method: AdaptationMethod, given: Mapping[str, Any]) -> list[AdaptationMethod]:
    """Fine-tuning is a row for each thing that can be tuned, unless one is named."""
    if isinstance(method, FineTuning) and "what" not in given:
        return [method.model_copy(update={"what": what}) for what in ADAPTERS]
    return [method]
