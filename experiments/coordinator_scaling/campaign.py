"""Everything that results.json does not hold yet; with --check the issue's line alone."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from picture import draw
from real import real_steps
from shards import sharded
from simulate import simulated_step
from table import write_table

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
GROUPS = (4, 8, 16, 32, 64, 128, 256)
MILLION = 1_000_000
SIZES = (MILLION, 40 * MILLION, 160 * MILLION)
TASKS_PER_GROUP = 4
TASK_S = 5.5
"""Seconds of a task of configs/demo.yaml, measured on one core of the machine that results.json is of."""
MEASURED_TASKS = {MILLION: 1024, 40 * MILLION: 16, 160 * MILLION: 6}
"""The most tasks that are computed for real; for more, the cost a task is taken from there."""
BAR = 0.05


def main() -> int:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true", help="64 groups and 40 M parameters; nothing is written")
    if parser.parse_args().check:
        return check()
    for groups in (1, 2):
        keep(f"real {groups}", lambda groups=groups: real_steps(groups))
    for parameters in SIZES:
        most = MEASURED_TASKS[parameters]
        for groups in GROUPS:
            tasks = groups * TASKS_PER_GROUP
            if tasks <= most:
                keep(f"simulated {parameters} {groups}", lambda p=parameters, g=groups: measured(p, g))
        keep(f"cost {parameters}", lambda p=parameters: cost(p))
    for shards in (1, 2):
        keep(f"shards {shards}", lambda shards=shards: sharded(40 * MILLION, 8, shards))
    results = read()
    draw(results, HERE / "picture.svg")
    write_table(results, HERE / "README.md")
    return 0


def check() -> int:
    """Whether the coordinator's work at 64 groups and 40 M parameters is at most 5 % of a step."""
    found = cost(40 * MILLION)
    share = share_of_step(found, 64)
    holds = share <= BAR
    print(
        f"{'PASS' if holds else 'FALL SHORT'}  coordinator at 64 groups, 40 M parameters, tasks of {TASK_S:g} s: "
        f"{100 * share:.1f} % of a step (bar {100 * BAR:g} %; {found['a_task_s']:.3f} s a task, "
        f"{found['a_step_s']:.2f} s a step)"
    )
    return 0 if holds else 1


def measured(parameters: int, groups: int) -> dict[str, Any]:
    """One step, all of it computed."""
    return asdict(simulated_step(groups, parameters, groups * TASKS_PER_GROUP, TASK_S))


def cost(parameters: int) -> dict[str, Any]:
    """Coordinator seconds a task and a step, from two steps with few and with more tasks (a straight line)."""
    most = min(MEASURED_TASKS[parameters], 64)
    few = simulated_step(4, parameters, 2, TASK_S)
    more = simulated_step(4, parameters, most, TASK_S)
    a_task = (more.coordinator_s - few.coordinator_s) / (more.tasks - few.tasks)
    return {
        "parameters": parameters,
        "a_task_s": a_task,
        "a_step_s": few.coordinator_s - few.tasks * a_task,
        "tasks": [few.tasks, more.tasks],
        "load": os.getloadavg()[0],
    }


def share_of_step(found: dict[str, Any], groups: int) -> float:
    """Coordinator's part of a step in which every group computes `TASKS_PER_GROUP` tasks, none of it overlapped."""
    own = found["a_step_s"] + groups * TASKS_PER_GROUP * found["a_task_s"]
    return own / (own + TASKS_PER_GROUP * TASK_S)


def keep(key: str, measure: Callable[[], dict[str, Any]]) -> None:
    """Measure it unless it is there."""
    results = read()
    if key not in results:
        print(key, flush=True)
        results[key] = measure()
        results["machine"] = {"cpus": os.cpu_count(), "memory_gb": round(psutil.virtual_memory().total / 2**30)}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def read() -> dict[str, Any]:
    """What was measured so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


if __name__ == "__main__":
    sys.exit(main())
