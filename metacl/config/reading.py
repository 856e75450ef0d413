"""A run's config from YAML with dotted overrides, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from metacl.config.run import RunConfig
from metacl.errors import ConfigError
from metacl.registry import Component, explain, nearest_key


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML config and apply ``key.sub=value`` overrides (values are read as YAML).

    Raises
    ------
    ConfigError
        Missing or unreadable file, unknown key (with the nearest known one), wrong type, impossible combination.
    """
    path = Path(path)
    tree = read_tree(path, overrides, RunConfig)
    if "stream" in tree and "data" not in tree:
        raise ConfigError(f"{path}: has a stream, so it is the config of a continual run. Use: metacl continual {path}")
    return config_from_dict(tree, origin=str(path))


def read_tree(path: Path, overrides: Sequence[str], model: type[Component]) -> dict[str, Any]:
    """The plain values of a YAML config with its overrides; `model` is what they will be, for its top keys.

    Raises `ConfigError` as `load_config` does for what is wrong before any key is looked at.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file. Paths are relative to {Path.cwd()}.")
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that cannot be
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where is not None else ""
        raise ConfigError(f"{path}{line}: not YAML ({getattr(error, 'problem', None) or error}).") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of sections at the top, got {type(tree).__name__}.")
    for override in overrides:
        _apply(tree, override, model)
    return tree


def config_from_dict(tree: dict[str, Any], origin: str = "config") -> RunConfig:
    """Check a tree of plain values and build the config. Raises `ConfigError` prefixed with `origin`."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {explain(error, RunConfig)}") from None
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None


def config_to_yaml(config: RunConfig) -> str:
    """The resolved config as YAML that loads to an equal one."""
    return yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)


def _apply(tree: dict[str, Any], override: str, model: type[Component]) -> None:
    key, separator, text = override.partition("=")
    parts = key.split(".")
    if not separator or not all(parts):
        raise ConfigError(f"override {override!r}: expected key=value, for example outer.steps=20.")
    if parts[0] not in model.model_fields:
        raise ConfigError(f"override {override!r}: unknown key {parts[0]!r}. {nearest_key(parts[:1], model)}")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"override {override!r}: the value is not YAML; quote it.") from None
    node = tree
    for part in parts[:-1]:
        child = node.get(part)
        if isinstance(child, str):  # the shorthand `objective: anil` is given options
            child = {"name": child}
        node[part] = child if isinstance(child, dict) else {}
        node = node[part]
    node[parts[-1]] = value
