"""What is trained: a meta-learned start and a jointly trained one for the same operations, and those of steps.yaml."""

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

INTENTS = ("banking77", "hwu64", "oos")
"""What the start of both intent data sets learns from: the training classes of a split of all three."""
TOGETHER, ONE, FROM_ZERO = "together", "one", "one_zero"
"""The kinds of starts: config.yaml, with its joint one beside it; steps.yaml; steps.yaml with a head from zero."""
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


def named_data(dataset: str, split: str, runs: Path) -> dict[str, object]:
    """Episodes of a data set whose classes have names, with those in the support; of HuffPost, without."""
    return {**source(dataset, split, runs), **({} if dataset == "huffpost" else {"names_in_support": True})}


def trained_on(kind: str, dataset: str) -> str:
    """What a start of this kind is called that is asked about a data set's classes."""
    return "intents" if kind == TOGETHER and dataset in INTENTS else dataset


def config(kind: str, name: str, split: str, runs: Path) -> RunConfig:
    """A kind of start on the training classes of a split."""
    runs.mkdir(exist_ok=True)
    path, changed = HERE / "steps.yaml", HEAD_FROM_ZERO if kind == FROM_ZERO else []
    data: dict[str, object] = source(name, split, runs) if kind != TOGETHER else {}
    if kind == TOGETHER:
        path = HERE / "config.yaml"
        parts = [{"source": named_data(one, split, runs), "weight": 1.0} for one in INTENTS]
        data = {"name": "mixture", "sources": parts} if name == "intents" else named_data(name, split, runs)
    settings = metacl.load_config(path, [f"output={runs / f'{kind}_{name}_{split}'}", *changed])
    return RunConfig.model_validate({**settings.to_dict(), "data": data, "name": f"{kind}_{name}_{split}"})


@cache
def trained(kind: str, name: str, split: str, runs: Path = RUNS) -> Starts:
    """Trained if it is not yet; of `TOGETHER` the joint start, too."""
    settings = config(kind, name, split, runs)
    folder = settings.folder
    if not (folder / "init").exists():
        metacl.train(settings)
    stored = read_initialization(folder / "init")
    worker = Worker(settings)
    adapter = folder / "joint.safetensors"
    if not adapter.exists() and kind == TOGETHER:
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
    return Starts(worker, adapter, worker.layout.flatten(stored.meta))


def cost(kind: str, name: str, split: str, runs: Path = RUNS) -> dict[str, Any] | None:
    """What training took; None where the run is not here."""
    folder = runs / f"{kind}_{name}_{split}"
    if (folder / "cost.json").exists():
        found: dict[str, Any] = json.loads((folder / "cost.json").read_text("utf-8"))
        return found
    if not (folder / "init").exists():
        return None
    of_steps = metrics(folder)
    tasks = config(kind, name, split, runs).outer.tasks_per_step * len(of_steps)
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
    classes = joint.training_classes(worker)
    adapter = {name: tensor.clone().requires_grad_() for name, tensor in worker.learner.initial.items()}
    with FlopCounterMode(display=False) as counter:
        for _ in range(COUNTED):
            worker.learner.features(adapter, joint.batch(worker, classes, random)).sum().backward()
    return counter.get_total_flops() / COUNTED
