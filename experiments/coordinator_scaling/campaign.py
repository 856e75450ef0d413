"""Everything that results.json does not hold yet; with --check the one bar alone."""

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
from ray_calls import ray_calls
from real import real_steps
from shard_work import shard_work
from shares import BAR, CHECKPOINT_EVERY, GROUPS, MILLION, SIZES, TASK_S, TASKS_PER_GROUP, Share, share_of_step
from simulate import simulated_step
from table import write_table

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
MOST_TASKS = {MILLION: 1024, 40 * MILLION: 256, 160 * MILLION: 64}
"""In one process: more take minutes, and what one costs is known by then."""


def main() -> int:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true", help="64 groups and 40 M parameters; nothing is written")
    if parser.parse_args().check:
        return check()
    keep("ray calls", ray_calls)
    for groups, shards, ahead in ((1, 1, True), (1, 2, True), (2, 1, True), (2, 1, False), (2, 2, True)):
        key = f"real {groups} {shards} {'with' if ahead else 'without'} tasks made ahead"
        keep(key, lambda g=groups, s=shards, a=ahead: real_steps(g, s, a))
    for parameters in SIZES:
        for groups in GROUPS:
            if groups * TASKS_PER_GROUP <= MOST_TASKS[parameters]:
                keep(f"one {parameters} {groups}", lambda p=parameters, g=groups: simulated(p, g, 1))
            keep(f"shards {parameters} {groups}", lambda p=parameters, g=groups: simulated(p, g, g))
            keep(f"shard work {parameters} {groups}", lambda p=parameters, g=groups: one_shard(p, g))
    results = read()
    draw(results, HERE / "picture.svg")
    write_table(results, HERE / "README.md")
    return 0


def check() -> int:
    """Whether the coordinator's work at 64 groups and 40 M parameters is at most 5 % of a step, with 64 shards."""
    calls, work = ray_calls(), one_shard(40 * MILLION, 64)
    steps = simulated(40 * MILLION, 64, 64)
    found = share_of_step(steps, calls, work)
    print(
        f"the coordinator's step {steps['coordinator_s']:.2f} s; a checkpoint every {CHECKPOINT_EVERY} steps "
        f"{steps['checkpoint_s']:.2f} s; Ray: {1000 * calls['a_task_s']:.2f} ms a task, "
        f"{1000 * calls['a_shard_s']:.2f} ms a shard, {calls['put_s'][str(40 * MILLION)]:.2f} s for the parameters"
    )
    alone = share_of_step(simulated(40 * MILLION, 16, 1), None, None)
    print(f"one process, 16 groups: {alone.own_s:.2f} s, {100 * alone.own:.1f} % of a step; at 64 four times the work")
    print(
        f"64 groups with 64 shards, 40 M parameters, tasks of {TASK_S:g} s: coordinator {found.own_s:.2f} s a step, a "
        f"shard {work['check_s']:.2f} s beside the tasks and {work['combine_s']:.2f} s after them; "
        f"{100 * found.critical:.1f} % of a step is not the tasks'"
    )
    print(f"{verdict(found)}  coordinator's work: {100 * found.own:.1f} % of a step (bar {100 * BAR:g} %)")
    return 0 if found.own <= BAR else 1


def verdict(share: Share) -> str:
    """In words."""
    return "PASS" if share.own <= BAR else "FALL SHORT"


def simulated(parameters: int, groups: int, shards: int) -> dict[str, Any]:
    """One step, all of it computed but what the shards do."""
    tasks = groups * TASKS_PER_GROUP
    return {**asdict(simulated_step(groups, parameters, tasks, TASK_S, shards)), "load": os.getloadavg()[0]}


def one_shard(parameters: int, groups: int) -> dict[str, Any]:
    """One of as many shards as groups."""
    return shard_work(parameters, groups, groups * TASKS_PER_GROUP)


def keep(key: str, measure: Callable[[], dict[str, Any]]) -> None:
    """Measure it unless it is there."""
    if key not in read():
        print(key, flush=True)
        found = measure()
        results = {**read(), key: found}
        results["machine"] = {"cpus": os.cpu_count(), "memory_gb": round(psutil.virtual_memory().total / 2**30)}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def read() -> dict[str, Any]:
    """What was measured so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


if __name__ == "__main__":
    sys.exit(main())
