"""Presets: a published algorithm by name, which is nothing but the four choices it makes.

A preset is a YAML file here, opened by a comment with paper and equation. ``preset: NAME`` in a config lays the file
under the config's own sections, so every key can still be set; ``metacl train CONFIG --dry-run`` shows the outcome. A
preset says nothing about model, data, outer loop or workers.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

from metacl.errors import ConfigError
from metacl.registry import nearest

CHOICES = ("objective", "inner", "estimator")
"""The sections that a preset may set."""


def preset_names() -> list[str]:
    """All presets, sorted."""
    return sorted(path.name.removesuffix(".yaml") for path in files(__name__).iterdir() if path.name.endswith(".yaml"))


def preset_summary(name: str) -> str:
    """The first line of the preset's comment: what it is, and where it was published."""
    return _text(name).split("\n", 1)[0].removeprefix("# ")


def preset(name: str) -> dict[str, Any]:
    """The sections that preset `name` sets, as plain values. Raises `ConfigError` naming the nearest one."""
    return copy.deepcopy(yaml.safe_load(_text(name)))


def with_preset(tree: dict[str, Any]) -> dict[str, Any]:
    """`tree` with its preset, if it names one, laid under it. Sections of another name replace the preset's whole."""
    name = tree.get("preset")
    return tree if name is None else _laid_over(preset(str(name)), tree)


def _laid_over(below: Any, above: Any) -> Any:
    below, above = _long_form(below), _long_form(above, like=below)
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    if "name" in below and above.get("name", below["name"]) != below["name"]:
        return above
    return {**below, **{key: _laid_over(below.get(key), value) for key, value in above.items()}}


def _long_form(value: Any, like: Any = None) -> Any:
    """``anil`` as ``{name: anil}`` where a component stands."""
    return {"name": value} if isinstance(value, str) and isinstance(like, dict) else value


@lru_cache
def _text(name: str) -> str:
    if name not in preset_names():
        raise ConfigError(f"preset: unknown preset {name!r}. {nearest(name, preset_names())}")
    return (files(__name__) / f"{name}.yaml").read_text("utf-8")
