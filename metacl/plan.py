"""What a run would do, before anything is started: worker groups, parameters, memory."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil
import torch

from metacl.api import check_data, starting_point
from metacl.config import RunConfig
from metacl.learners.base import STEP_SIZE, parameter_count

BYTES = 4  # everything is float32


@dataclass(frozen=True)
class Plan:
    """Lines of (what, value) and the reasons why the run cannot start as it is (none: it can)."""

    lines: list[tuple[str, str]]
    obstacles: list[str]


def make_plan(config: RunConfig) -> Plan:
    """Read the data, load the model once, and lay out what the run needs against what there is.

    Raises `ConfigError` or `DataError` where the run itself would.
    """
    workers = config.workers
    data = check_data(config)
    learner, meta = starting_point(config)
    learned = parameter_count(meta)
    inner = sum(tensor.numel() for name, tensor in meta.items() if not name.startswith(STEP_SIZE))
    base_mb = learner.base_parameters * BYTES / 2**20
    trajectory_mb = inner * BYTES * (config.inner.steps + 1) / 2**20
    cpus, gpus, memory_mb, where = _available(config)
    obstacles = []
    lines = [("data", data), ("model", config.learner.source())]
    if workers.executor == "ray":
        each = f"{workers.threads} CPU(s) and {workers.gpus_per_group} GPU(s), ZeRO {workers.zero_stage}"
        lines.append(("worker groups", f"{workers.groups} of {each}; {where}: {cpus:g} CPUs, {gpus:g} GPUs"))
        own = workers.address is None
        if workers.groups * workers.gpus_per_group > gpus:
            obstacles.append(f"{workers.groups * workers.gpus_per_group} GPUs asked for, {gpus:g} there")
        if workers.groups * workers.threads > cpus:
            line = f"{workers.groups * workers.threads} CPUs asked for, {cpus:g} there"
            if own:
                lines.append(("note", f"{line}: groups will share cores, which is slower"))
            else:
                obstacles.append(line)
    else:
        lines.append(("worker", f"one, in this process, {workers.threads} thread(s)"))
    total_mb = base_mb + trajectory_mb
    lines += [
        ("parameters", f"{learner.base_parameters:,} frozen, {learned:,} learned in {len(meta)} tensors"),
        (
            "memory per group",
            f"{base_mb:.0f} MB base + {trajectory_mb:.1f} MB trajectory of {config.inner.steps} inner "
            f"steps, before activations; {where}: {memory_mb:,.0f} MB free",
        ),
        ("gradient per task", f"{learned * BYTES / 2**20:.2f} MB"),
        ("work", f"{config.outer.steps} steps x {config.outer.tasks_per_step} tasks"),
        ("output", str(config.folder)),
    ]
    if total_mb * workers.groups > memory_mb:
        obstacles.append(f"{total_mb * workers.groups:,.0f} MB needed before activations, {memory_mb:,.0f} MB free")
    return Plan(lines, obstacles)


def _available(config: RunConfig) -> tuple[float, float, float, str]:
    """CPUs, GPUs, free memory in MB, and of what."""
    if config.workers.executor == "ray" and config.workers.address is not None:
        from metacl.coordination.ray_cluster import cluster_resources

        resources = cluster_resources(config.workers)
        memory_mb = resources.get("memory", 0.0) / 2**20
        return (
            resources.get("CPU", 0.0),
            resources.get("GPU", 0.0),
            memory_mb,
            f"the cluster at {config.workers.address}",
        )
    free_mb = psutil.virtual_memory().available / 2**20
    return float(os.cpu_count() or 1), float(torch.cuda.device_count()), free_mb, "this machine"
