"""What a step costs on real worker groups: the coordinator's share from metrics.jsonl, Ray included."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import metacl
from metacl.coordination.ray_executor import RayExecutor

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def nothing_ahead() -> Iterator[None]:
    """The executor forgets what it is told of later tasks."""
    foresee = RayExecutor.foresee
    RayExecutor.foresee = lambda executor, addresses: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        RayExecutor.foresee = foresee  # type: ignore[method-assign]


def real_steps(groups: int, shards: int, ahead: bool, steps: int = 6, tasks: int = 7) -> dict[str, Any]:
    """MiniLM with LoRA on BANKING77 as configs/quick.yaml has it; means over all steps but the first.

    `ahead` False: groups that wait do nothing. Two groups share an odd number of tasks, so one of them waits.
    """
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            f"output={folder}/run",
            f"workers={{executor: ray, groups: {groups}, gradient_shards: {shards}, threads: 1}}",
            f"outer.steps={steps}",
            f"outer.tasks_per_step={tasks}",
            "evaluation=null",
        ]
        with nothing_ahead() if not ahead else contextlib.nullcontext():
            metacl.train(metacl.load_config(ROOT / "configs" / "quick.yaml", overrides))
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()][1:]
    step_s = sum(line["seconds"] for line in lines) / len(lines)
    own_s = sum(line["coordinator_seconds"] for line in lines) / len(lines)
    return {
        "groups": groups,
        "shards": shards,
        "ahead": ahead,
        "tasks": tasks,
        "step_s": step_s,
        "coordinator_s": own_s,
        "task_s": groups * (step_s - own_s) / tasks,
        "load": os.getloadavg()[0],
    }
