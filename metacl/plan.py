"""What a run would do, before anything is started: worker groups, parameters, memory."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil
import torch

from metacl.api import check_data, starting_point
from metacl.config import RunConfig
from metacl.coordination.coordinator import Resume
from metacl.coordination.run_folder import RunFolder
from metacl.learners.base import STEP_SIZE, parameter_count

BYTES = 4  # of a float32; a base in bfloat16 takes less
PROCESS_MB = 600
"""What a process takes before it holds a model: torch, transformers and, in a worker group, Ray and DeepSpeed."""


@dataclass(frozen=True)
class Plan:
    """Lines of (what, value) and the reasons why the run cannot start as it is (none: it can)."""

    lines: list[tuple[str, str]]
    obstacles: list[str]


def make_plan(config: RunConfig, resume: Resume = "auto") -> Plan:
    """Look at the folder, read the data, load the model once, and lay out what the run needs against what there is.

    Raises `ConfigError` or `DataError` where the run itself would.
    """
    workers = config.workers
    RunFolder(config.folder).check(config, resume=resume != "never")
    data = check_data(config)
    learner, meta = starting_point(config)
    learned = parameter_count(meta)
    inner = sum(tensor.numel() for name, tensor in meta.items() if not name.startswith(STEP_SIZE))
    base_mb = learner.base_parameters * BYTES / 2**20
    trajectory_mb = inner * BYTES * (config.inner.steps + 1) / 2**20
    there = _available(config)
    obstacles = []
    lines = [("data", data), ("model", config.learner.source())]
    if workers.executor == "ray":
        each = f"{workers.threads} CPU(s) and {workers.gpus_per_group} GPU(s), ZeRO {workers.zero_stage}"
        lines.append(
            ("worker groups", f"{workers.groups} of {each}; {there.where}: {there.cpus:g} CPUs, {there.gpus:g} GPUs")
        )
        if workers.groups * workers.gpus_per_group > there.gpus:
            obstacles.append(f"{workers.groups * workers.gpus_per_group} GPUs asked for, {there.gpus:g} there")
        if workers.groups * workers.threads > there.cpus:
            line = f"{workers.groups * workers.threads} CPUs asked for, {there.cpus:g} there"
            if there.own:
                lines.append(("note", f"{line}: groups will share cores, which is slower"))
            else:
                obstacles.append(line)
    else:
        lines.append(("worker", f"one, in this process, {workers.threads} thread(s)"))
    needed_mb = workers.groups * (PROCESS_MB + base_mb + trajectory_mb)
    memory = f"{there.memory_mb:,.0f} MB {'free' if there.own else 'in all'}"
    lines += [
        ("parameters", f"{learner.base_parameters:,} frozen, {learned:,} learned in {len(meta)} tensors"),
        (
            "memory per group",
            f"about {PROCESS_MB} MB process + {base_mb:.0f} MB base + {trajectory_mb:.1f} MB trajectory of "
            f"{config.inner.steps} inner steps; activations come on top; {there.where}: {memory}",
        ),
        ("gradient per task", f"{learned * BYTES / 2**20:.2f} MB"),
        ("work", f"{config.outer.steps} steps x {config.outer.tasks_per_step} tasks"),
        ("output", str(config.folder)),
    ]
    if needed_mb > there.memory_mb:
        obstacles.append(f"{needed_mb:,.0f} MB needed before activations, {memory}")
    return Plan(lines, obstacles)


@dataclass(frozen=True)
class _Available:
    """What there is to run on. `own`: this machine, whose free memory is known; else a cluster, with all it has."""

    cpus: float
    gpus: float
    memory_mb: float
    where: str
    own: bool


def _available(config: RunConfig) -> _Available:
    if config.workers.executor == "ray":
        from metacl.coordination.ray_cluster import cluster_address, cluster_resources

        address = cluster_address(config.workers)
        if address is not None:
            has = cluster_resources(config.workers)
            return _Available(
                has.get("CPU", 0.0),
                has.get("GPU", 0.0),
                has.get("memory", 0.0) / 2**20,
                f"the cluster at {address}",
                own=False,
            )
    free_mb = psutil.virtual_memory().available / 2**20
    return _Available(float(os.cpu_count() or 1), float(torch.cuda.device_count()), free_mb, "this machine", own=True)
