"""What is kept of tasks that were left out, so that they can be computed again: their address, why, and the parameters.

``failed/step-N/`` holds meta_params.safetensors (of the step, once for all its tasks) and reasons.json. Only the latest
`KEPT` steps are kept.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from metacl.errors import ResourceError, TrainingError
from metacl.learners.base import Params
from metacl.tasks import TaskAddress

KEPT = 10


def record_failed(folder: Path, step: int, meta: Params, left_out: dict[TaskAddress, str]) -> None:
    """Write ``folder/step-N``. Raises `ResourceError` if that cannot be."""
    target = folder / f"step-{step}"
    try:
        target.mkdir(parents=True, exist_ok=True)
        save_file({n: t.detach().contiguous() for n, t in meta.items()}, target / "meta_params.safetensors")
        reasons = {str(address): reason for address, reason in sorted(left_out.items())}
        (target / "reasons.json").write_text(json.dumps(reasons, indent=1) + "\n")
    except (OSError, SafetensorError) as error:
        raise ResourceError(f"{target}: the failed tasks' parameters could not be written ({error}).") from None
    for _, old in failed_steps(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def failed_steps(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of the steps with failed tasks, in order."""
    return sorted((int(path.name.removeprefix("step-")), path) for path in folder.glob("step-*"))


def read_failed(path: Path) -> tuple[Params, dict[str, str]]:
    """Parameters of a step, and the reasons by address. Raises `TrainingError` if the files are damaged."""
    try:
        return load_file(path / "meta_params.safetensors"), json.loads((path / "reasons.json").read_text())
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainingError(f"{path}: cannot be read ({error}).") from None
