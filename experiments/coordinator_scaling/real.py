"""What a step costs on real worker groups: the coordinator's share from metrics.jsonl, Ray included."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import metacl

ROOT = Path(__file__).parents[2]


def real_steps(groups: int, shards: int, steps: int = 6, tasks: int = 8) -> dict[str, Any]:
    """MiniLM with LoRA on BANKING77 as configs/quick.yaml has it; means over all steps but the first."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            f"output={folder}/run",
            f"workers={{executor: ray, groups: {groups}, gradient_shards: {shards}, threads: 1}}",
            f"outer.steps={steps}",
            f"outer.tasks_per_step={tasks}",
            "evaluation=null",
        ]
        metacl.train(metacl.load_config(ROOT / "configs" / "quick.yaml", overrides))
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()][1:]
    step_s = sum(line["seconds"] for line in lines) / len(lines)
    own_s = sum(line["coordinator_seconds"] for line in lines) / len(lines)
    return {
        "groups": groups,
        "shards": shards,
        "tasks": tasks,
        "step_s": step_s,
        "coordinator_s": own_s,
        "task_s": groups * (step_s - own_s) / tasks,
        "load": os.getloadavg()[0],
    }
