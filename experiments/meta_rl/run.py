"""Trains the meta-learned and the pretrained policy, lets both adapt to unseen goals, and writes the reward curves."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import metacl
from metacl.config import RunConfig, load_config
from metacl.learners.base import Params
from metacl.metagradients import plain_gradient, trajectory
from metacl.tasks import EpisodeShape, TaskAddress

HERE = Path(__file__).parent
STEPS = 3
ANSWERS = 100
"""Fresh answers by which a policy's reward is measured; none of them is adapted to."""
METHODS: dict[str, list[str]] = {
    "meta-learned": [],
    "pretrained": ["inner.steps=0"],
}
"""What each row changes in config.yaml. Pretrained: one policy for all goals, trained on as many tasks."""


def measure(config: RunConfig, meta: Params, rate: float | None, goals: int) -> torch.Tensor:
    """Mean summed reward after 0 … STEPS inner steps, (goals, STEPS + 1). `rate`: in place of the step sizes there."""
    learner, source, objective = config.learner.build(config.seed), config.data.open(), config.objective
    loop = config.inner.model_copy(update={"steps": STEPS})
    if rate is not None:
        sizes = config.inner.step_size.model_copy(update={"value": rate, "head": rate, "learn": "none"})
        loop = loop.model_copy(update={"step_size": sizes})
    found = torch.zeros(goals, STEPS + 1, dtype=torch.float64)
    with torch.no_grad():
        for index in range(goals):
            task = learner.prepare(source.episode(TaskAddress("test", 1, 0, index), EpisodeShape()))
            problem = objective.problem(learner, meta, task, loop)
            for step, state in enumerate(trajectory(problem, plain_gradient(problem), problem.start(meta))):
                params = objective.bind(state.theta, meta)
                answers = learner.sample(params, task.query, ANSWERS, seed=10_000 + index)
                found[index, step] = objective.reward.of(task.query, answers).sum(-1).mean()
    return found


def main() -> int:
    """Everything; see README.md for what it costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="train anew, compare, write nothing here")
    parser.add_argument("--goals", type=int, default=100, help="unseen goals")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE))
    started = time.perf_counter()
    curves: dict[str, Any] = {}
    rewards: dict[str, torch.Tensor] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, choices in METHODS.items():
            config = load_config(HERE / "config.yaml", [*choices, f"output={Path(folder) / name}"])
            meta = metacl.read_initialization(metacl.train(config).initialization).meta
            if name == "meta-learned":
                rewards[name] = measure(config, meta, None, options.goals)
                continue
            # The pretrained start gets the step size that suits it best on these very goals.
            tried = {rate: measure(config, meta, rate, options.goals) for rate in (0.01, 0.03, 0.1, 0.3, 1.0)}
            best = max(tried, key=lambda rate: float(tried[rate][:, -1].mean()))
            rewards[f"{name}, step size {best} (the best of {len(tried)})"] = tried[best]
    for name, found in rewards.items():
        half = 1.96 * found.std(0) / len(found) ** 0.5
        curves[name] = {
            "reward": [round(v, 3) for v in found.mean(0).tolist()],
            "half_interval": [round(v, 3) for v in half.tolist()],
        }
        print(f"{name:45}" + "".join(f"{value:8.2f}" for value in curves[name]["reward"]))
    meta_learned, pretrained = rewards.values()
    gain = meta_learned - pretrained
    low = gain.mean(0) - 1.96 * gain.std(0) / len(gain) ** 0.5
    passed = bool((low[1:] > 0).all())
    minutes = (time.perf_counter() - started) / 60
    print(f"{'PASS' if passed else 'FALL SHORT'}  meta-learned beats pretrained after the same 1 … {STEPS} steps")
    print(f"{minutes:.1f} minutes")
    if not options.check:
        result = {"unseen_goals": options.goals, "minutes": round(minutes, 1), "curves": curves, "passed": passed}
        (HERE / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
