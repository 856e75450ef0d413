"""Strikes a long run with random faults and compares its bytes with those of the run left alone.

python chaos.py [--check]. The cluster is simulated: each node is a Ray node of its own on this machine. A node that is
killed comes back after some seconds, as where machines are replaced; a run that stops is started again with the same
command.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from picture import draw
from plan import NODES, TASKS, disturbed_tree, faults, run_tree, save_model
from ray.cluster_utils import Cluster

HERE = Path(__file__).parent
SEED = 5
FULL = {"count": 110, "steps": 160}
CHECK = {"count": 12, "steps": 20}
HEALTH = {"health_check_period_ms": 1000, "health_check_failure_threshold": 4, "health_check_timeout_ms": 2000}
HEAD = {"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
NODE_AWAY_S = 3.0
RESUMABLE = (75, 3)


class Nodes:
    """A head without CPUs and `NODES` nodes with one each; those that die are replaced."""

    def __init__(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args=HEAD)
        self._nodes = [self.cluster.add_node(num_cpus=1) for _ in range(NODES)]
        self.cluster.wait_for_nodes()
        self.replaced = 0

    def replace_dead(self) -> None:
        """Put a new node in the place of each that died."""
        for node in [node for node in self._nodes if node.dead_processes()]:
            time.sleep(NODE_AWAY_S)
            self._nodes.remove(node)
            self.cluster.remove_node(node)
            self._nodes.append(self.cluster.add_node(num_cpus=1))
            self.replaced += 1


def main() -> int:
    """Both runs, the comparison, results.json and the picture; the exit status says whether nothing was lost."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true", help="12 faults, nothing is written")
    check = parser.parse_args().check
    size = CHECK if check else FULL
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = save_model(folder / "model")
        calm, wild = folder / "calm", folder / "wild"
        drive(run_tree(model, calm, size["steps"]), folder / "calm.jsonl", lambda: None)
        struck = faults(size["count"], size["steps"], SEED)
        nodes = Nodes()
        try:
            tree = disturbed_tree(model, wild, size["steps"], struck, nodes.cluster.address)
            exits = []
            while not exits or exits[-1] in RESUMABLE:
                exits.append(drive(tree, folder / "wild.jsonl", nodes.replace_dead))
        finally:
            nodes.cluster.shutdown()
        events = [json.loads(line) for line in (folder / "wild.jsonl").read_text().splitlines()]
        results = {
            "seed": SEED,
            "steps": size["steps"],
            "tasks_per_step": TASKS,
            "faults": dict(Counter(fault["kind"] for fault in struck)),
            "struck": len(json.loads((wild / "faults.json").read_text())),
            "nodes_replaced": nodes.replaced,
            "exit_codes": exits,
            "seconds": round(time.monotonic() - started, 1),
            **account(events, size["steps"]),
            "sha256": {"undisturbed": tensors_hash(calm), "disturbed": tensors_hash(wild)},
        }
    for key, value in results.items():
        print(f"{key}: {value}")
    if not check:
        (HERE / "results.json").write_text(json.dumps({**results, "cpus": os.cpu_count()}, indent=1) + "\n")
        draw(events, HERE / "picture.svg")
    good = verdicts(results)
    for claim, holds in good.items():
        print(f"{'PASS' if holds else 'FALL SHORT':<10}  {claim}")
    return 0 if all(good.values()) else 1


def drive(tree: dict[str, Any], events: Path, meanwhile: Callable[[], None]) -> int:
    """One part of a run in a process of its own, `meanwhile` called now and then. Its exit status."""
    path = events.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(tree))
    command = [sys.executable, str(HERE / "drive.py"), str(path), str(events)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        time.sleep(0.5)
        meanwhile()
    return process.returncode


def account(events: list[dict[str, Any]], steps: int) -> dict[str, Any]:
    """Tasks lost and counted twice in the steps that made the result, and what the run met."""
    last = {event["step"]: event for event in events if "step" in event}  # a resumed run takes some steps again
    wanted = list(range(1, TASKS + 1))
    notes = [event["note"] for event in events if "note" in event]
    return {
        "steps_in_the_result": sum(step in last for step in range(1, steps + 1)),
        "tasks_lost": sum(len(set(wanted) - set(event["counted"])) + event["left_out"] for event in last.values()),
        "tasks_counted_twice": sum(len(event["counted"]) - len(set(event["counted"])) for event in last.values()),
        "groups_lost": sum(" is lost (" in note for note in notes),
        "tasks_reissued": sum(int(note.split()[1]) for note in notes if note.startswith("reissuing ")),
        "tasks_computed_twice_for_being_late": sum("is late on worker group" in note for note in notes),
        "tasks_refused_and_computed_again": sum("once more" in note or "asking again" in note for note in notes),
        "damaged_checkpoints_skipped": sum("skipping a damaged checkpoint" in note for note in notes),
    }


def verdicts(results: dict[str, Any]) -> dict[str, bool]:
    """Each bar, PASS or FALL SHORT."""
    return {
        f"all {sum(results['faults'].values())} faults struck": results["struck"] == sum(results["faults"].values()),
        "every step is in the result": results["steps_in_the_result"] == results["steps"],
        "0 tasks lost": results["tasks_lost"] == 0,
        "0 tasks counted twice": results["tasks_counted_twice"] == 0,
        "same bits as undisturbed": results["sha256"]["undisturbed"] == results["sha256"]["disturbed"],
        "ended with 0": results["exit_codes"][-1] == 0,
    }


def tensors_hash(run: Path) -> str:
    """sha256 over the tensors of a run's initialization; "none" if it has none."""
    files = sorted((run / "init").glob("*.safetensors"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() if files else "none"


if __name__ == "__main__":
    sys.exit(main())
