"""The folder a run leaves: its resolved config, a line of metrics a step, its checkpoints.

A folder belongs to one run. Another run that would write into it is refused before anything is touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from metacl.config import RunConfig, config_from_dict, config_to_yaml
from metacl.errors import ConfigError, ResourceError
from metacl.registry import Component

NOT_IDENTITY = (
    "name",
    "output",
    "workers.executor",
    "workers.groups",
    "workers.min_groups",
    "workers.respawns",
    "workers.task_timeout_s",
    "workers.stragglers",
    "workers.address",
    "workers.zero_stage",
    "workers.gradient_shards",
    "workers.start_timeout_s",
    "checkpoints",
    "evaluation",
    "faults",
)
"""What may change between parts of one run: they do not change a bit of what is trained."""


class RunFolder:
    """Paths of a run and the few writes that are made to them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.best = path / "checkpoints" / "best"
        self.failed = path / "failed"
        self.faults = path / "faults.json"
        self.initialization = path / "init"
        self.results = path / "results.json"
        self.report = path / "report.html"

    def check(self, config: RunConfig, resume: bool) -> None:
        """Is the folder free, or this run's? Changes nothing.

        Raises `ConfigError` if it holds another run (naming the keys that differ), or any run when `resume` is false.
        """
        if self.config.exists():
            if not resume:
                raise ConfigError(
                    f"{self.path}: already holds a run, and --resume never forbids to continue it. "
                    f"Give another folder (output=…) or remove this one."
                )
            differing = self.differences(config)
            if differing:
                raise ConfigError(
                    f"{self.path}: holds a different run ({'; '.join(differing)}). "
                    f"Give another folder (output=…) or remove this one."
                )
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ConfigError(f"{self.path}: exists and is not the folder of a run. Give another one (output=…).")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """In here the folder is this process's alone. Raises `ConfigError` if another one runs in it.

        The lock lies beside the folder and is the system's: it goes with the process, however that ends.
        """
        beside = self.path.parent / f".{self.path.name}.lock"
        try:
            beside.parent.mkdir(parents=True, exist_ok=True)
            file = beside.open("a")
        except OSError as error:
            raise ResourceError(
                f"{self.path}: cannot be written ({error.strerror}). Give another one (output=…)."
            ) from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"{self.path}: another metacl is at work in this folder. Wait for it, stop it, or give another "
                    f"folder (output=…)."
                ) from None
            yield

    def differences(self, config: RunConfig) -> list[str]:
        """What makes the run in this folder another one than `config`; nothing if there is none."""
        if not self.config.exists():
            return []
        return differing_keys(filled_in(self._stored(), config_from_dict), config.to_dict())

    def discard_results(self) -> None:
        """Remove the closing figures and report of a training that goes on."""
        self.results.unlink(missing_ok=True)
        self.report.unlink(missing_ok=True)

    def claim(self, config: RunConfig) -> None:
        """Make the folder this run's by writing its resolved config. Raises `ResourceError` if that cannot be."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"{self.path}: cannot be written ({error.strerror}). Give another one (output=…)."
            ) from None
        write_text(self.config, config_to_yaml(config))

    def stored_config(self) -> RunConfig:
        """The config of the run in this folder, which is its output. Raises `ConfigError` if there is none."""
        if not self.config.exists():
            raise ConfigError(f"{self.path}: no run here (it has no config.yaml).")
        return config_from_dict({**self._stored(), "output": str(self.path)}, origin=str(self.config))

    def _stored(self) -> dict[str, Any]:
        try:
            stored = yaml.safe_load(self.config.read_text("utf-8"))
        except (yaml.YAMLError, ValueError):
            stored = None
        if not isinstance(stored, dict):
            raise ConfigError(f"{self.config}: damaged. Restore it, or give another folder (output=…).")
        return stored

    def keep_metrics_until(self, step: int) -> None:
        """Drop the lines of steps that an interrupted run computed after its last checkpoint."""
        if self.metrics.exists():
            lines = self.metrics.read_text("utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            write_text(self.metrics, "".join(kept))

    def append_metrics(self, line: dict[str, Any]) -> None:
        """One line of JSON."""
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise ResourceError(
                f"{self.metrics}: cannot be written ({error.strerror}). Free some space; the same command continues "
                f"from the last checkpoint."
            ) from None


def filled_in(stored: dict[str, Any], read: Callable[[dict[str, Any]], Component]) -> dict[str, Any]:
    """A stored config with the defaults of options that were not there yet when it was written.

    read : makes a config of a tree. What it refuses now stays as it is.
    """
    try:
        return read(stored).to_dict()
    except ConfigError:
        return stored


def differing_keys(stored: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """What of two resolved configs makes them different runs, as ``key: stored -> current``."""
    stored, current = _flat(stored), _flat(current)
    ignored: tuple[str, ...] = NOT_IDENTITY
    if stored.get("outer.schedule") == current.get("outer.schedule") == "constant":
        ignored = (*ignored, "outer.steps")  # a longer run of the same kind continues the shorter one
    keys = [key for key in sorted({*stored, *current}) if not key.startswith(ignored)]
    return [
        f"{key}: {stored.get(key)!r} -> {current.get(key)!r}" for key in keys if stored.get(key) != current.get(key)
    ]


def write_text(path: Path, text: str) -> None:
    """Replace a text file whole or not at all. Raises `ResourceError` if it cannot be written."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file whole or not at all. Raises `ResourceError` if it cannot be written."""
    aside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise ResourceError(
            f"{path}: cannot be written ({error.strerror}). Free some space or use another folder."
        ) from None


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
