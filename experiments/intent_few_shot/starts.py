"""The two trained starts of a data set and split: meta-learned, and jointly trained for the same operations."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import joint
import torch
from frozen import HERE, source
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

import metacl
from metacl.config import RunConfig
from metacl.coordination.flat import Flat
from metacl.coordination.run_folder import write_text
from metacl.coordination.worker import MetaGradientWork, Worker
from metacl.initialization import read_initialization
from metacl.tasks import TaskAddress

ZERO = "zero"
HEAD_FROM_ZERO = ["objective=maml", "episodes.ways=5"]
RUNS = HERE / "runs"
COUNTED = 3
"""Tasks and batches whose operations are counted; the others cost as much on average."""


@dataclass(frozen=True)
class Starts:
    """What was trained. adapter : the file of the joint one. meta : the parameters of the meta-learned one, flat."""

    worker: Worker
    adapter: Path
    meta: Flat


def config(dataset: str, split: str, runs: Path) -> RunConfig:
    """config.yaml on the training classes of this split; "…zero" is another objective on the same ones."""
    runs.mkdir(exist_ok=True)
    changed = HEAD_FROM_ZERO if split.endswith(ZERO) else []
    settings = metacl.load_config(HERE / "config.yaml", [f"output={runs / f'{dataset}_{split}'}", *changed])
    data = {"data": source(dataset, split.removesuffix(f"-{ZERO}"), runs), "name": f"{dataset}_{split}"}
    return RunConfig.model_validate({**settings.to_dict(), **data})


@cache
def trained(dataset: str, split: str, runs: Path = RUNS) -> Starts:
    """Both, trained if they are not yet."""
    settings = config(dataset, split, runs)
    folder = settings.folder
    if not (folder / "init").exists():
        metacl.train(settings)
    stored = read_initialization(folder / "init")
    worker = Worker(settings)
    meta = worker.layout.flatten(stored.meta)
    adapter = folder / "joint.safetensors"
    if not adapter.exists() and dataset != "clinc150" and not split.endswith(ZERO):
        each, a_batch = flops_of_task(worker), flops_of_batch(worker)
        tasks = settings.outer.steps * settings.outer.tasks_per_step
        steps = round(tasks * each / a_batch)
        started = time.perf_counter()
        found = joint.train(worker, steps, settings.outer.learning_rate)
        cost = {
            "tasks": tasks,
            "flops_of_a_task": each,
            "seconds": sum(line["seconds"] for line in metrics(folder)),
            "joint_batches": steps,
            "flops_of_a_batch": a_batch,
            "joint_seconds": time.perf_counter() - started,
            "step_sizes": {name: float(tensor) for name, tensor in stored.meta.items() if tensor.ndim == 0},
        }
        save_file(found, adapter)
        write_text(folder / "cost.json", json.dumps(cost, indent=1) + "\n")
    return Starts(worker, adapter, meta)


def cost(dataset: str, split: str, runs: Path = RUNS) -> dict[str, Any]:
    """What training took."""
    folder = runs / f"{dataset}_{split}"
    if (folder / "cost.json").exists():
        found: dict[str, Any] = json.loads((folder / "cost.json").read_text("utf-8"))
        return found
    of_steps = metrics(folder)
    tasks = config(dataset, split, runs).outer.tasks_per_step * len(of_steps)
    return {"tasks": tasks, "seconds": sum(line["seconds"] for line in of_steps)}


def metrics(folder: Path) -> list[dict[str, Any]]:
    """A dict a step."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def flops_of_task(worker: Worker) -> float:
    """The meta-gradient of a training task with its frozen layers, on average."""
    meta = worker.layout.flatten(worker.initial)
    with FlopCounterMode(display=False) as counter:
        for index in range(COUNTED):
            MetaGradientWork()(worker, TaskAddress("train", worker.config.seed, 0, index), meta)
    return counter.get_total_flops() / COUNTED


def flops_of_batch(worker: Worker) -> float:
    """A joint batch forward and backward with its frozen layers, on average; the head is small beside it."""
    random = torch.Generator().manual_seed(0)
    adapter = {name: tensor.clone().requires_grad_() for name, tensor in worker.learner.initial.items()}
    with FlopCounterMode(display=False) as counter:
        for _ in range(COUNTED):
            worker.learner.features(adapter, joint.batch(worker, random)).sum().backward()
    return counter.get_total_flops() / COUNTED
