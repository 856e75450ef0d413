"""What a run would do, before anything is started: worker groups, parameters, memory."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil
import torch

from metacl.api import check_data, starting_point
from metacl.config import RunConfig
from metacl.coordination.coordinator import Resume
from metacl.coordination.memory_plan import RankMemory, rank_memory, weightless
from metacl.coordination.run_folder import RunFolder
from metacl.learners.base import parameter_count
from metacl.learners.transformer import TransformerConfig

BYTES = 4  # of a float32
MB = 2**20
PROCESS_MB = 600
"""What a process takes before it holds a model: torch, transformers and, in a worker group, Ray and DeepSpeed."""
OUTER_COPIES = 5
"""Of a part of the meta-parameters in a process of its own: it, as it is sent, a gradient, the two moments of Adam."""

GLIBC_KEEPS = (
    "glibc keeps freed memory in pieces: a half to twice as much as adapted parameters and activations was measured "
    "beside them (experiments/sharded_second_order). MALLOC_MMAP_THRESHOLD_=262144 in the environment gives it back at "
    "once, for 1.3 to 1.9 times the seconds."
)


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
    sharded = workers.executor == "ray" and workers.zero_stage == 3
    # A base in shards may be more than this process can hold.
    learner, meta = weightless(config) if sharded else starting_point(config)
    shapes = config.inner.partitioned(learner.partition).shapes
    learned = sum(shapes[name].numel() if name in shapes else tensor.numel() for name, tensor in meta.items())
    there = _available(config)
    obstacles = []
    least, most = workers.groups_to_start, workers.groups
    groups = f"{most}" if least == most else f"{least} to {most}"
    lines = [("data", data), ("model", config.learner.source())]
    cpus = workers.ranks_per_group * workers.threads
    if workers.executor == "ray":
        ranks = f"{workers.ranks_per_group} rank(s), " if workers.ranks_per_group > 1 else ""
        each = f"{ranks}{cpus} CPU(s) and {workers.gpus_per_group} GPU(s), ZeRO {workers.zero_stage}"
        lines.append(
            ("worker groups", f"{groups} of {each}; {there.where}: {there.cpus:g} CPUs, {there.gpus:g} GPUs")
        )
        if least * workers.gpus_per_group > there.gpus:
            obstacles.append(f"{least * workers.gpus_per_group} GPUs asked for, {there.gpus:g} there")
        if least * cpus > there.cpus:
            line = f"{least * cpus} CPUs asked for, {there.cpus:g} there"
            if there.own:
                lines.append(("note", f"{line}: groups will share cores, which is slower"))
            else:
                obstacles.append(line)
    else:
        lines.append(("worker", f"one, in this process, {workers.threads} thread(s)"))
    memory = f"{there.memory_mb:,.0f} MB {'free' if there.own else 'in all'}"
    lines.append(("parameters", f"{learner.base_parameters:,} frozen, {learned:,} learned in {len(meta)} tensors"))
    if isinstance(config.learner, TransformerConfig):
        rank = rank_memory(config)
        on_machine_mb = PROCESS_MB + rank.offloaded / MB
        if not workers.gpus_per_group:
            on_machine_mb += rank.on_device / MB
        elif there.gpu_memory_mb is not None and rank.on_device / MB > there.gpu_memory_mb:
            there_is = f"the smallest has {there.gpu_memory_mb:,.0f} MB"
            obstacles.append(f"{rank.on_device / MB:,.0f} MB needed on a GPU, {there_is}")
        needed_mb = least * workers.ranks_per_group * on_machine_mb
        if config.parameters_in_parts:
            part_mb = OUTER_COPIES * parameter_count(meta) * BYTES / MB
            each = f"{PROCESS_MB} MB process + {part_mb:,.1f} MB its part, with its gradient and the optimizer's state"
            lines.append(("meta-parameters", f"in {workers.ranks_per_group} parts, each: {each}"))
            needed_mb += workers.ranks_per_group * (PROCESS_MB + part_mb)
        if needed_mb > there.memory_mb:
            obstacles.append(f"{needed_mb:,.0f} MB needed, {memory}")
        lines += [*_memory_lines(rank, config), ("memory in all", f"{needed_mb:,.0f} MB; {there.where}: {memory}")]
    lines += [
        ("gradient per task", f"{learned * BYTES / 2**20:.2f} MB"),
        ("work", f"{config.outer.steps} steps x {config.outer.tasks_per_step} tasks"),
        ("output", str(config.folder)),
    ]
    return Plan(lines, obstacles)


def _memory_lines(rank: RankMemory, config: RunConfig) -> list[tuple[str, str]]:
    """What one rank holds, part by part."""
    steps, name = config.inner.steps, config.estimator.registered_name or type(config.estimator).__name__
    parts = [f"{PROCESS_MB} MB process"]
    if rank.gathered:
        kept = f", {rank.offloaded / MB:,.1f} MB of it offloaded" if rank.offloaded else ""
        parts.append(f"{rank.base / MB:,.1f} MB its part of the base{kept}")
        parts.append(f"{rank.gathered / MB:,.1f} MB the largest matrix, gathered")
    else:
        parts.append(f"{rank.base / MB:,.1f} MB base")
    parts.append(f"{rank.trajectory / MB:,.1f} MB adapted parameters of {steps} inner steps")
    parts.append(f"{rank.activations / MB:,.1f} MB activations at the peak of {name}")
    lines = [("memory per rank", " + ".join(parts))]
    if not rank.gathered and not config.workers.gpus_per_group:  # ranks that hold shards see to it themselves
        lines.append(("note", GLIBC_KEEPS))
    return lines


@dataclass(frozen=True)
class _Available:
    """What there is to run on. `own`: this machine, whose free memory is known; else a cluster, with all it has.

    gpu_memory_mb : of the smallest GPU; None where it is not known.
    """

    cpus: float
    gpus: float
    memory_mb: float
    where: str
    own: bool
    gpu_memory_mb: float | None = None


def _available(config: RunConfig) -> _Available:
    if config.workers.executor == "ray":
        from metacl.coordination.ray_cluster import cluster_address, cluster_resources

        address = cluster_address(config.workers)
        if address is not None:
            has = cluster_resources(config.workers)
            return _Available(
                has.get("CPU", 0.0),
                has.get("GPU", 0.0),
                has.get("memory", 0.0) / MB,
                f"the cluster at {address}",
                own=False,
            )
    free_mb = psutil.virtual_memory().available / MB
    gpus = [torch.cuda.get_device_properties(place).total_memory / MB for place in range(torch.cuda.device_count())]
    smallest = min(gpus, default=None)
    return _Available(float(os.cpu_count() or 1), float(len(gpus)), free_mb, "this machine", True, smallest)
