"""From what was measured to a part of a step, and what of it is added up from parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GROUPS = (4, 16, 64, 256)
MILLION = 1_000_000
SIZES = (MILLION, 40 * MILLION, 160 * MILLION)
TASKS_PER_GROUP = 4
TASK_S = 5.5
"""Seconds of a task of configs/demo.yaml, as it was measured on one core."""
CHECKPOINT_EVERY = 10
"""Steps, as by default."""
BAR = 0.05


@dataclass(frozen=True)
class Share:
    """Of a step in which every group computes its tasks and nothing overlaps with what the coordinator does.

    own_s, own : the work of the coordinator's process, in seconds and as a part of the step.
    critical_s, critical : all that is not the tasks', the shards' work after the last task included.
    """

    own_s: float
    own: float
    critical_s: float
    critical: float


def share_of_step(
    simulated: dict[str, Any], calls: dict[str, Any] | None, work: dict[str, Any] | None, task_s: float = TASK_S
) -> Share:
    """`simulated`, and what Ray's calls cost the process (`calls`), and what a shard does (`work`), where given."""
    own = simulated["coordinator_s"] + simulated["checkpoint_s"] / CHECKPOINT_EVERY
    if calls is not None:
        own += simulated["tasks"] * calls["a_task_s"] + simulated["shards"] * calls["a_shard_s"]
        own += calls["put_s"][str(simulated["parameters"])]
    critical = own
    if work is not None:
        critical += work["combine_s"] + work["check_s"] / work["tasks"]
    critical += (simulated["checkpoint_wall_s"] - simulated["checkpoint_s"]) / CHECKPOINT_EVERY  # waiting for the disk
    tasks = TASKS_PER_GROUP * task_s
    return Share(own, own / (own + tasks), critical, critical / (critical + tasks))
