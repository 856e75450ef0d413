"""A continual run from its config: every seed, a checkpoint after every experience, results when they are there.

``config.yaml``; ``seed-S/checkpoints/step-K`` (the standing after K experiences) and ``seed-S/model`` for each seed;
``results.json``. The same command goes on where a run was stopped, and bit for bit as if it had not been; with a stream
that has become longer it learns what is new.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from metacl.continual.config import ContinualConfig
from metacl.continual.experience import Stream
from metacl.continual.loop import ContinualLoop, Standing
from metacl.continual.record import Record, described
from metacl.continual.results import results_of
from metacl.continual.starts import read_start, write_model
from metacl.coordination.checkpoint import Checkpoint, newest_checkpoint, save_checkpoint
from metacl.coordination.interrupt import StopRequested, StopSignals
from metacl.coordination.run_folder import RunFolder, differing_keys, write_text
from metacl.errors import ConfigError, ResourceError, RunInterrupted
from metacl.learners.base import Learner, use_threads

KEPT = 2
"""Checkpoints of a seed: the newest, and the one before it in case it is damaged."""

MAY_CHANGE = ("stream", "seeds")
"""Of a run that goes on: a longer stream (whose past is compared, example by example), more seeds."""

Notify = Callable[[str], None]


def run_continual(config: ContinualConfig, notify: Notify) -> dict[str, Any]:
    """Run or go on; returns what results.json holds.

    Raises
    ------
    ConfigError, DataError
        Before anything is written.
    RunInterrupted
        By SIGINT or SIGTERM; what is finished is saved.
    """
    folder = RunFolder(config.folder)
    use_threads(config.threads)
    streams = {seed: config.stream.open(seed) for seed in config.seeds}
    with folder.locked(), StopSignals() as signals:
        _check_folder(folder, config)
        first = config.seeds[0]
        make_loop(config, first, streams[first], config.learner.build(first))  # raises if its parts do not fit
        for seed, stream in streams.items():
            _newest(stream, folder.path / f"seed-{seed}" / "checkpoints", notify)
        _write_config(folder, config)
        records: dict[int, Record] = {}
        for seed, stream in streams.items():
            records[seed] = _run_seed(config, seed, stream, folder.path / f"seed-{seed}", signals, notify)
            tree = results_of(config, records)
            write_text(folder.results, json.dumps(tree, indent=1) + "\n")
        return tree


def make_loop(config: ContinualConfig, seed: int, stream: Stream, learner: Learner) -> ContinualLoop:
    """The loop of one seed. Raises `ConfigError` if the start or a strategy does not fit."""
    return ContinualLoop(
        learner,
        stream,
        config.training,
        config.strategies,
        seed=seed,
        start=None if config.start is None else read_start(config.start, config.learner, seed),
        scenario=config.scenario,
        curve=config.measuring.curve,
        test_rows=config.measuring.rows,
    )


def _run_seed(
    config: ContinualConfig, seed: int, stream: Stream, folder: Path, signals: StopSignals, notify: Notify
) -> Record:
    learner = config.learner.build(seed)
    loop = make_loop(config, seed, stream, learner)
    checkpoints = folder / "checkpoints"
    try:
        with signals.abandonable():
            standing = _resumed(loop, checkpoints, notify) or loop.begin()
        if standing.record.rows:
            notify(f"seed {seed}: {len(standing.record.rows)} of {len(stream)} experiences are there")
        while len(standing.record.rows) < len(stream):
            with signals.abandonable():
                standing = loop.learn(standing)
            save_checkpoint(checkpoints, _as_checkpoint(standing), KEPT)
            notify(f"seed {seed}: {_line(standing.record)}")
    except StopRequested:
        raise RunInterrupted(
            f"the experiences that were finished are in {checkpoints}. The same command continues, bit for bit."
        ) from None
    write_model(folder / "model", learner, config.learner, loop.model.bind(standing.params), stream.class_names)
    return standing.record


def _as_checkpoint(standing: Standing) -> Checkpoint:
    """Parameters as its own, what strategies remember as its state, and what was measured on held-out tests."""
    states = {
        f"{place}:{name}": tensor.contiguous()
        for place, state in enumerate(standing.states)
        for name, tensor in state.items()
    }
    return Checkpoint(len(standing.record.rows), standing.params, states, standing.record.to_dict())


def _newest(stream: Stream, checkpoints: Path, notify: Notify) -> Checkpoint | None:
    """Where a run stopped. Raises `ConfigError` if what it learned from is not the beginning of the stream."""
    found = newest_checkpoint(checkpoints, notify)
    if found is None:
        return None
    record = Record.from_dict(found.held_out)
    now = described(stream)
    for before, here in zip(record.experiences, now, strict=False):
        if before["fingerprint"] != here["fingerprint"]:
            raise ConfigError(
                f"stream: experience {here['name']!r} is not the one this run has learned ({before['name']!r}, "
                f"{before['train']} + {before['test']} examples). Restore it, or give another folder (output=…)."
            )
    if len(record.experiences) > len(now):
        raise ConfigError(
            f"stream: it has {len(now)} experiences, and this run has learned {len(record.experiences)}. A stream can "
            f"become longer only. Restore it, or give another folder (output=…)."
        )
    return found


def _resumed(loop: ContinualLoop, checkpoints: Path, notify: Notify) -> Standing | None:
    found = _newest(loop.stream, checkpoints, notify)
    if found is None:
        return None
    record = Record.from_dict(found.held_out)
    if record.start != loop.start_fingerprint():
        raise ConfigError(
            "start: it is not what this run began from. Restore it, or give another folder (output=…) for a new run."
        )
    states: list[dict[str, Any]] = [{} for _ in loop.strategies]
    for key, tensor in found.outer_state.items():
        place, name = key.split(":", 1)
        states[int(place)][name] = tensor
    ordered = {name: found.meta[name] for name in loop.start}  # files are sorted by name; sums go in the model's order
    return loop.extended(Standing(ordered, tuple(states), record))


def _check_folder(folder: RunFolder, config: ContinualConfig) -> None:
    """Raise `ConfigError` if the folder holds another run, or something else."""
    if folder.config.exists():
        try:
            stored = yaml.safe_load(folder.config.read_text("utf-8"))
        except (yaml.YAMLError, ValueError):
            stored = None
        if not isinstance(stored, dict):
            raise ConfigError(f"{folder.config}: damaged. Restore it, or give another folder (output=…).")
        trees = [{k: v for k, v in tree.items() if k not in MAY_CHANGE} for tree in (stored, config.to_dict())]
        if differing := differing_keys(*trees):
            raise ConfigError(
                f"{folder.path}: holds a different run ({'; '.join(differing)}). Give another folder (output=…) or "
                f"remove this one."
            )
    elif folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
        raise ConfigError(f"{folder.path}: exists and is not the folder of a run. Give another one (output=…).")


def _write_config(folder: RunFolder, config: ContinualConfig) -> None:
    """The folder is this run's afterwards."""
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"{folder.path}: cannot be written ({error.strerror}). Give another one (output=…)."
        ) from None
    write_text(folder.config, yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True))


def _line(record: Record) -> str:
    k = len(record.rows) - 1
    row = record.rows[-1]
    met = [value for value in row[: k + 1] if value is not None]
    own, mean = row[k], sum(met) / len(met)
    assert own is not None
    seconds = record.learn_seconds[-1] + record.test_seconds[-1]
    if record.measure == "accuracy":
        told = f"{100 * own:.1f} % on it, {100 * mean:.1f} % on all so far"
    else:
        told = f"{own:.3f} nats a token on it, {mean:.3f} on all so far"
    return f"{k + 1}/{len(record.experiences)} {record.experiences[k]['name']}: {told} ({seconds:.1f} s)"
