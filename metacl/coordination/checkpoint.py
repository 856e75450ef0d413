"""Checkpoints that are whole or not there: written aside, hashed, flushed to disk, then renamed.

``step-N/`` holds meta_params.safetensors, outer_state.safetensors, state.json and manifest.json (sha256 of
the others); where the meta-parameters lie in parts, the first two once a part, meta_params-0.safetensors, …, and none
is in memory with another. No pickle anywhere. An older checkpoint is removed only after the new one is safe; a damaged
one is named and the one before it is used.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from metacl.coordination.executor import Notify
from metacl.errors import ResourceError, TrainingError
from metacl.learners.base import Params

FORMAT = 1
META, OUTER = "meta_params", "outer_state"

PartTensors = tuple[Params, dict[str, Tensor]]
"""Meta-parameters and outer optimizer's tensors of one part."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of training after `step` outer steps.

    held_out : plain values, how the held-out tasks went so far.
    parts : where the meta-parameters lie in parts, each of them, there when it is asked for; `meta` and `outer_state`
    are empty then.
    """

    step: int
    meta: Params
    outer_state: dict[str, Tensor]
    held_out: dict[str, Any] = field(default_factory=dict)
    parts: Collection[PartTensors] = ()


Write = Callable[[dict[str, Tensor], Path], None]
"""Writes tensors to a file."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int, write: Write = save_file) -> Path:
    """Write ``folder/step-N`` atomically, then remove all but the newest `keep`.

    Raises `ResourceError` on a full disk.
    """
    final = folder / f"step-{checkpoint.step}"
    aside = folder / f".step-{checkpoint.step}.tmp-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".step-*.tmp-*"):  # by a process that was killed while it wrote
            _remove(left)
        aside.mkdir()
        parts = checkpoint.parts or [(checkpoint.meta, checkpoint.outer_state)]
        for part, (meta, outer_state) in zip(_endings(len(checkpoint.parts)), parts, strict=True):
            write({n: t.detach().contiguous() for n, t in meta.items()}, aside / f"{META}{part}")
            write(outer_state, aside / f"{OUTER}{part}")
        state = {"format": FORMAT, "step": checkpoint.step, "held_out": checkpoint.held_out}
        if checkpoint.parts:
            state["parts"] = len(checkpoint.parts)
        (aside / "state.json").write_text(json.dumps(state) + "\n")
        hashes = {path.name: _sha256(path) for path in sorted(aside.iterdir())}
        (aside / "manifest.json").write_text(json.dumps(hashes, indent=1) + "\n")
        for path in aside.iterdir():
            _flush(path)
        _flush(aside)
        _remove(final)
        aside.rename(final)
        _flush(folder)
    except ResourceError:  # a part of it could not be had
        _remove(aside)
        raise
    except (OSError, SafetensorError) as error:
        _remove(aside)
        # safetensors writes in Rust and hands the system's error on as text.
        reason = error.strerror if isinstance(error, OSError) else str(error)
        full = any(reason == os.strerror(n) or f"os error {n})" in str(reason) for n in (errno.ENOSPC, errno.EDQUOT))
        raise ResourceError(
            f"{final}: the checkpoint could not be written ({reason}).{' The disk is full; free some space.' * full} "
            f"Older checkpoints are untouched; the run resumes from the newest."
        ) from None
    found = list_checkpoints(folder)
    stale = [path for step, path in found if step > checkpoint.step]  # of a course that this one replaces
    for old in stale + [path for step, path in found if step <= checkpoint.step][keep:]:
        _remove(old)
    return final


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of every checkpoint, newest first."""
    found = []
    for path in folder.glob("step-*"):
        number = path.name.removeprefix("step-")
        if number.isdigit():
            found.append((int(number), path))
    return sorted(found, reverse=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify one checkpoint. Raises `TrainingError` saying what is damaged."""
    try:
        hashes = json.loads((path / "manifest.json").read_text())
        parts = sum(name.startswith(f"{META}-") for name in hashes) if isinstance(hashes, dict) else 0
        hashed = {"state.json", *(kind + ending for kind in (META, OUTER) for ending in _endings(parts))}
        if not isinstance(hashes, dict) or set(hashes) != hashed:
            raise TrainingError(f"{path}: manifest.json does not list {', '.join(sorted(hashed))}.")
        for name, expected in hashes.items():
            if _sha256(path / name) != expected:
                raise TrainingError(f"{path}: {name} is not what its manifest says (sha256 differs).")
        state = json.loads((path / "state.json").read_text())
        whole: PartTensors = ({}, {}) if parts else _read_part(path, *_endings(0))
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainingError(f"{path}: not a complete checkpoint ({error}).") from None
    if state.get("format") != FORMAT:
        raise TrainingError(f"{path}: written in format {state.get('format')}, this metacl reads {FORMAT}.")
    stored = _StoredParts(path, parts) if parts else ()
    return Checkpoint(int(state["step"]), *whole, state.get("held_out", {}), stored)


@dataclass(frozen=True)
class _StoredParts(Collection[PartTensors]):
    """The parts of a checkpoint, read one by one."""

    path: Path
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[PartTensors]:
        return (_read_part(self.path, ending) for ending in _endings(self.count))

    def __contains__(self, _: object) -> bool:
        return False


def _endings(parts: int) -> list[str]:
    """Of the files' names; 0 for meta-parameters that do not lie in parts."""
    return [f"-{part}.safetensors" for part in range(parts)] or [".safetensors"]


def _read_part(path: Path, ending: str) -> PartTensors:
    return load_file(path / f"{META}{ending}"), load_file(path / f"{OUTER}{ending}")


def newest_checkpoint(folder: Path, notify: Notify) -> Checkpoint | None:
    """The newest sound checkpoint, naming damaged ones on the way; None if there is none at all.

    Raises `TrainingError` if there are checkpoints but every one is damaged.
    """
    paths = list_checkpoints(folder)
    for _, path in paths:
        try:
            return load_checkpoint(path)
        except TrainingError as error:
            notify(f"skipping a damaged checkpoint: {error}")
    if paths:
        raise TrainingError(
            f"{folder}: all {len(paths)} checkpoints are damaged. Start again with another output folder."
        )
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
