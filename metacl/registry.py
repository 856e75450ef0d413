"""One registry for every extension point: a name in a config becomes an object built from its options.

A component is a class derived from `Component`; its fields are its options, typed, with defaults. A
duplicate name is an error; an unknown name or option is an error that names the nearest one.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo, field_validator

from metacl.errors import ConfigError

C = TypeVar("C", bound="Component")


class Component(BaseModel):
    """A part that a config can choose by name. Fields are its options; it never changes after it is built."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)
    registered_name: ClassVar[str | None] = None

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Left alone, pydantic would take YAML's yes and true for the number 1."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError(f"yes/no is not possible here (got {value!r})")
        return value

    def to_dict(self) -> dict[str, Any]:
        """All options as plain values, with the name where the component was chosen by one."""
        named = {"name": self.registered_name} if self.registered_name else {}
        return {**named, **{field: _plain(getattr(self, field)) for field in type(self).model_fields}}


class Registry(Generic[C]):
    """The components of one kind, by name.

    Parameters
    ----------
    kind : str
        What the components are, as the user reads it in errors ("objective").
    key : str
        The config section that chooses one ("objective").
    """

    def __init__(self, kind: str, key: str) -> None:
        self.kind = kind
        self.key = key
        self._classes: dict[str, type[C]] = {}

    def register(self, name: str) -> Callable[[type[C]], type[C]]:
        """Class decorator that makes `name` available to configs.

        Raises `ConfigError` on a duplicate, and on a class that leaves out what its kind must have.
        """

        def add(cls: type[C]) -> type[C]:
            if name in self._classes:
                other = self._classes[name]
                raise ConfigError(
                    f"{self.kind} {name!r} is registered twice: by {other.__module__}.{other.__qualname__} and by "
                    f"{cls.__module__}.{cls.__qualname__}. Give one of them another name."
                )
            if inspect.isabstract(cls):
                missing = ", ".join(sorted(cls.__abstractmethods__))
                raise ConfigError(
                    f"{self.kind} {name!r}: {cls.__module__}.{cls.__qualname__} does not define {missing}; every "
                    f"{self.kind} does."
                )
            self._classes[name] = cls
            cls.registered_name = name
            return cls

        return add

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._classes)

    def get(self, name: str) -> type[C]:
        """The class behind `name`. Raises `ConfigError` naming the nearest one."""
        if not isinstance(name, str) or name not in self._classes:
            raise ConfigError(f"{self.key}.name: unknown {self.kind} {name!r}. {nearest(name, self.names())}")
        return self._classes[name]

    def build(self, options: dict[str, Any]) -> C:
        """Build the component that ``options["name"]`` chooses from the remaining options."""
        rest = dict(options)
        name = rest.pop("name")
        try:
            return self.get(name).model_validate(rest)
        except ValidationError as error:
            raise ConfigError(explain(error, self.get(name), prefix=f"{self.key}.")) from None

    def summary(self, name: str) -> str:
        """The first line of the component's docstring."""
        return (inspect.getdoc(self.get(name)) or "").split("\n", 1)[0]


def chosen_from(registry: Registry[Any]) -> BeforeValidator:
    """Let a field of a component's type be given as ``name`` or ``{name: …, option: …}``."""

    def build(value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict):
            return value
        if "name" not in value:
            raise ConfigError(f"{registry.key}.name: missing. Known: {', '.join(registry.names())}.")
        return registry.build(value)

    return BeforeValidator(build)


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that helps with a misspelt name: the nearest known one, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."


def nearest_key(path: Sequence[str], model: type[BaseModel]) -> str:
    """A sentence that helps with an unknown key of a config: where one of that very name stands, else as `nearest`.

    path : the key, part by part, from `model` on. Empty where nothing is known of the place.
    """
    *place, name = path
    if elsewhere := _places(model, name):
        return f"Did you mean {' or '.join(map(repr, elsewhere))}?"
    fields = _fields_at(model, place)
    return nearest(name, fields) if fields else ""


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """Turn pydantic's errors into lines of `key: what is wrong; what to do`."""
    lines = []
    for item in error.errors():
        path = [str(part) for part in item["loc"]]
        key = prefix + ".".join(path)
        if item["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key. {nearest_key(path, model)}".rstrip())
        elif item["type"] == "missing":
            lines.append(f"{key}: missing; it has no default.")
        elif item["type"] == "value_error":
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"{key}: {message}" if path else message)
        else:
            lines.append(f"{key}: {item['msg']} (got {item['input']!r}).")
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    if isinstance(value, Component):
        return value.to_dict()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _places(model: type[BaseModel], name: str) -> list[str]:
    """The dotted keys below `model` that end in `name`."""
    found = [name] if name in model.model_fields else []
    for field in model.model_fields:
        if section := _section(model, field):
            found += [f"{field}.{key}" for key in _places(section, name)]
    return found


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """The field names of the (nested) model that `path` leads to."""
    for part in path:
        section = _section(model, part)
        if section is None:
            return []
        model = section
    return list(model.model_fields)


def _section(model: type[BaseModel], field: str) -> type[BaseModel] | None:
    """The model that a field holds; None where it holds something else, or is not there."""
    info = model.model_fields.get(field)
    annotation = info.annotation if info else None
    kinds = [kind for kind in (annotation, *get_args(annotation)) if inspect.isclass(kind)]  # X, or X | None
    models = [kind for kind in kinds if issubclass(kind, BaseModel)]
    return models[0] if len(models) == 1 else None
