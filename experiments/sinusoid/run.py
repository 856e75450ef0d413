"""Trains every method through `metacl.train`, measures it on the same unseen waves, and writes what was found."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import metacl
from metacl.config import RunConfig, load_config
from metacl.learners.base import Params
from metacl.metagradients import InnerLoopDiverged, plain_gradient, trajectory
from metacl.tasks import EpisodeShape, Split, TaskAddress

HERE = Path(__file__).parent
STEPS = (0, 1, 5, 10)
SHAPE = EpisodeShape(ways=1, shots=5, queries=100)
TOGETHER = "estimator.compile=true"
METHODS: dict[str, list[str]] = {
    "MAML": ["estimator.allowance=all", TOGETHER],
    "FOMAML": ["preset=fomaml", "outer.steps=3000"],
    "Reptile": [
        "preset=reptile",
        "inner.steps=10",
        "inner.optimizer=sgd",
        "inner.step_size.value=0.02",
        "inner.step_size.head=0.02",
        "outer.steps=1500",
    ],
    "ANIL": ["preset=anil", "estimator.allowance=all", TOGETHER, "inner.steps=5", "outer.steps=2000"],
    "Meta-SGD": [
        "preset=meta_sgd",
        "estimator.allowance=all",
        TOGETHER,
        "inner.steps=5",
        "outer.steps=2000",
        "outer.learning_rate=2e-3",
        "outer.step_size_learning_rate=2e-4",
        "outer.clip_norm=1",
    ],
    "pretrained": [TOGETHER, "inner.steps=0", "outer.steps=6000"],
}
"""What each row changes in config.yaml. Pretrained: one network for all waves, no inner step."""

PUBLISHED = {"MAML": (0.67, 0.38, 0.35), "pretrained": (2.41, 2.23, 2.19)}
"""MSE after 1, 5 and 10 steps on 5 points (Finn et al. 2017, appendix B)."""

RATES = (0.001, 0.002, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03)
"""Step sizes tried for the pretrained start, which was trained for none."""


def measure(config: RunConfig, meta: Params, tasks: int, split: Split = "test") -> dict[str, Any]:
    """MSE on 100 new points after each number of steps: mean over waves and half its 95 % interval."""
    return summary(losses_of(config, meta, tasks, split))


def measure_tuned(config: RunConfig, meta: Params, tasks: int) -> dict[str, Any]:
    """As `measure`, with the step size that suits each number of steps best on 300 waves that are not measured."""
    chosen, losses = {}, torch.zeros(tasks, max(STEPS) + 1, dtype=torch.float64)
    tried = {rate: losses_of(with_rate(config, rate), meta, 300, "valid").mean(0) for rate in RATES}
    for step in STEPS:
        chosen[step] = min(RATES, key=lambda rate: float(tried[rate][step]))
        losses[:, step] = losses_of(with_rate(config, chosen[step]), meta, tasks, "test")[:, step]
    return {"step_sizes": chosen, **summary(losses)}


def with_rate(config: RunConfig, rate: float) -> RunConfig:
    """The config with another step size."""
    sizes = config.inner.step_size.model_copy(update={"value": rate, "head": rate})
    return config.model_copy(update={"inner": config.inner.model_copy(update={"step_size": sizes})})


def losses_of(config: RunConfig, meta: Params, tasks: int, split: Split) -> torch.Tensor:
    """MSE on 100 new points of each wave after each number of steps, (T, 1 + the most steps)."""
    learner, source = config.learner.build(config.seed), config.data.open()
    loop = config.inner.model_copy(update={"steps": max(STEPS)})
    losses = torch.full((tasks, max(STEPS) + 1), torch.inf, dtype=torch.float64)
    for index in range(tasks):
        task = learner.prepare(source.episode(TaskAddress(split, 1, 0, index), SHAPE))
        problem = config.objective.problem(learner, meta, task, loop)
        try:
            with torch.no_grad():
                for step, state in enumerate(trajectory(problem, plain_gradient(problem), problem.start(meta))):
                    losses[index, step] = problem.query_loss(state.theta, meta)
        except InnerLoopDiverged:
            pass  # the rest of the row stays infinite, and so does its mean
    return losses


def summary(losses: torch.Tensor) -> dict[str, Any]:
    """Means over waves, half their 95 % intervals, and on how many waves the loss left the numbers."""
    half = 1.96 * losses.std(0) / len(losses) ** 0.5
    return {
        "mse": {step: round(float(losses[:, step].mean()), 4) for step in STEPS},
        "half_interval": {step: round(float(half[step]), 4) for step in STEPS},
        "diverged": int((~losses.isfinite()).any(1).sum()),
    }


def fit(config: RunConfig, meta: Params) -> dict[str, Any]:
    """Curves of one unseen wave for the picture: x, the truth, and the network after each number of steps."""
    learner, source = config.learner.build(config.seed), config.data.open()
    task = learner.prepare(source.episode(TaskAddress("test", 1, 0, 3), SHAPE))
    grid = torch.linspace(-5, 5, 201).unsqueeze(-1)
    batch = learner.encode(grid, None)
    problem = config.objective.problem(learner, meta, task, config.inner.model_copy(update={"steps": max(STEPS)}))
    curves = {}
    with torch.no_grad():
        for step, state in enumerate(trajectory(problem, plain_gradient(problem), problem.start(meta))):
            if step in STEPS:
                outputs = learner.outputs(config.objective.bind(state.theta, meta), batch)
                curves[step] = [round(v, 4) for v in outputs.flatten().tolist()]
    x, y = (t.flatten() for t in (task.query.input, task.query.targets))
    order = x.argsort()
    points = [task.support.input.flatten().tolist(), task.support.targets.flatten().tolist()]
    wave = [x[order].tolist(), y[order].tolist()]
    return {"x": grid.flatten().tolist(), "curves": curves, "points": points, "wave": wave}


def main() -> int:
    """Everything; see README.md for what it costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only what has a published figure; write nothing here")
    parser.add_argument("--only", nargs="*", choices=METHODS)
    parser.add_argument("--tasks", type=int, default=1000, help="unseen waves")
    options = parser.parse_args()
    chosen = options.only or list(PUBLISHED if options.check else METHODS)
    path = HERE / "results.json"
    found: dict[str, Any] = {}
    if path.exists() and not options.check and set(chosen) != set(METHODS):
        found = json.loads(path.read_text())["methods"]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            output = Path(folder) / name
            config = load_config(HERE / "config.yaml", [*METHODS[name], f"output={output}"])
            begun = time.perf_counter()
            run = metacl.train(config)
            seconds = time.perf_counter() - begun
            meta = metacl.read_initialization(run.initialization).meta
            if config.inner.steps:
                row = {"step_sizes": config.inner.step_size.value, **measure(config, meta, options.tasks)}
            else:
                row = measure_tuned(config, meta, options.tasks)
                config = with_rate(config, row["step_sizes"][max(STEPS)])
            found[name] = {"choices": METHODS[name], "training_seconds": round(seconds), **row}
            found[name]["fit"] = fit(config, meta)
            mse = "  ".join(f"{step}: {value:.3f}" for step, value in row["mse"].items())
            if not options.check:
                write(path, found, options.tasks)
            print(f"{name:10}  MSE after steps  {mse}   ({seconds:.0f} s)", flush=True)
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes")
    return verdict(found)


def write(path: Path, found: dict[str, Any], tasks: int) -> None:
    """results.json with what is there so far, in the order of METHODS."""
    machine = {"processor": _processor(), "torch": torch.__version__, "load": round(os.getloadavg()[0], 1)}
    ordered = {name: found[name] for name in METHODS if name in found}
    path.write_text(json.dumps({"unseen_waves": tasks, "machine": machine, "methods": ordered}) + "\n")


def verdict(found: dict[str, Any]) -> int:
    """PASS or FALL SHORT for each published figure; how many fall short."""
    short = 0
    for name, figures in PUBLISHED.items():
        if name not in found:
            continue
        for step, published in zip((1, 5, 10), figures, strict=True):
            mse = found[name]["mse"]
            value = mse.get(step, mse.get(str(step)))
            short += value > published
            said = "PASS" if value <= published else "FALL SHORT"
            print(f"{said:10}  {name} after {step}: {value:.3f}, published {published}")
    return int(short > 0)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    sys.exit(main())
