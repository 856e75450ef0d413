"""Trains both starts, tunes step sizes on the validation domains, measures on the test domains: see run.sh."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import adapting
import compute
import joint
import numpy as np
import torch

from metacl import load_config
from metacl.adaptation import INNER_OPTIMIZERS, InnerLoop, StepSizes
from metacl.config import RunConfig
from metacl.coordination.run_folder import write_text
from metacl.evaluation.statistics import mean_interval, paired_difference
from metacl.initialization import read_initialization
from metacl.learners.base import Learner, Params, use_threads
from metacl.tasks.domain_source import DomainEpisodes
from metacl.tasks.episode import Split

HERE = Path(__file__).parent
DATA = HERE / "../../../shared/data/lm_domains"
METACL = [sys.executable, "-m", "metacl.cli"]
RATES = {"sgd": (0.01, 0.03, 0.1, 0.3, 1.0), "adam": (1e-4, 3e-4, 1e-3)}
"""What the joint start's inner loop is tried with on the validation domains."""
FACTORS = (0.1, 0.3, 1.0, 2.0, 3.0)
"""What the meta-learned step sizes are multiplied with there."""
META = "meta-learned"
ASKED = (META, 5), ("joint", 50)


@dataclass(frozen=True)
class Size:
    """How much of it is done. half : joint steps of each half. tuning, testing : tasks of each domain."""

    runs: str
    half: int
    tuning: int
    testing: int


WHOLE = Size("runs", 2000, 4, 8)
SMALL = Size("check", 250, 1, 1)


def main() -> int:
    """Everything; README.md says what it costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="all of it at an eighth of the size; judge results.json")
    options = parser.parse_args()
    if not DATA.is_dir():
        print(f"{DATA.resolve()} is not there: this experiment needs the text domains, which metacl does not carry.")
        return 1
    os.chdir(HERE)
    use_threads(1)
    if not options.check:
        found = campaign(WHOLE)
        write_text(HERE / "results.json", json.dumps(found, indent=1) + "\n")
        return verdict(found)
    found = campaign(SMALL)
    show(found, "an eighth of the size")
    return verdict(json.loads((HERE / "results.json").read_text()))


def campaign(size: Size) -> dict[str, Any]:
    """All parts that are not there yet, and what they found."""
    runs = Path(size.runs)
    training = kept(runs / "training.json", lambda: train(size, runs))
    starts = Starts(size, runs, training["meta_steps"])
    chosen: dict[str, Any] = {}
    measured: dict[str, Any] = {}
    for name in starts.configs:
        chosen[name] = kept(runs / f"chosen {name}.json", partial(starts.tuned, name))
        measured[name] = kept(runs / f"measured {name}.json", partial(starts.measured, name, chosen[name]))
    return {"torch": torch.__version__, "training": training, "chosen": chosen, "test": measured}


def kept(path: Path, make: Any) -> Any:
    """What `make` gives, made once."""
    if not path.exists():
        found = make()
        path.parent.mkdir(exist_ok=True)
        write_text(path, json.dumps(found, indent=1) + "\n")
    return json.loads(path.read_text())


def config_of(runs: Path, *overrides: str) -> RunConfig:
    """config.yaml with the models of `runs`."""
    return load_config(Path("config.yaml"), [f"learner.model={runs}/joint_half", f"output={runs}/meta", *overrides])


def train(size: Size, runs: Path) -> dict[str, Any]:
    """Both halves of joint pre-training, then as many meta-steps as the second half costs."""
    halves = kept(runs / "joint.json", lambda: train_joint(size, runs))
    config = config_of(runs)
    a_step, a_meta_step = compute.of_joint_step(config, str(runs / "joint_half")), compute.of_meta_step(config)
    steps = round(size.half * a_step / a_meta_step)
    overrides = [f"learner.model={runs}/joint_half", f"output={runs}/meta", f"outer.steps={steps}"]
    subprocess.run([*METACL, "train", "config.yaml", *overrides], check=True)
    lines = [json.loads(line) for line in (runs / "meta" / "metrics.jsonl").read_text().splitlines()]
    return {
        "joint_steps": 2 * size.half,
        "joint_flops": 2 * size.half * a_step,
        "joint_seconds": halves,
        "meta_steps": steps,
        "meta_flops": size.half * a_step + steps * a_meta_step,
        "meta_seconds": sum(line["seconds"] for line in lines),
        "meta_query_loss": [round(line["query_loss"], 4) for line in lines],
    }


def train_joint(size: Size, runs: Path) -> tuple[float, float]:
    """Writes both joint models. Returns the seconds of each half."""
    config = config_of(runs)
    source = config.data.open()
    assert isinstance(source, DomainEpisodes)
    return joint.train(source, config.learner.max_length, size.half, runs / "joint_half", runs / "joint")


class Starts:
    """The joint start, the meta-learned one, and the joint one after half of its training, from which both go on."""

    def __init__(self, size: Size, runs: Path, meta_steps: int) -> None:
        self.size = size
        meta = config_of(runs, f"outer.steps={meta_steps}")
        self.source = meta.data.open()
        self.configs = {
            "joint": config_of(runs, f"learner.model={runs}/joint", "inner.step_size.learn=none"),
            META: meta,
            "joint, half": config_of(runs, "inner.step_size.learn=none"),
        }
        self.learners: dict[str, Learner] = {name: c.learner.build(c.seed) for name, c in self.configs.items()}
        self.parameters: dict[str, Params] = {
            name: c.objective.meta_parameters(self.learners[name], c.inner, 1) for name, c in self.configs.items()
        }
        self.parameters[META] = read_initialization(runs / "meta" / "init").meta

    def adapted(self, start: str, optimizer: str, size: float, split: Split, each: int, steps: list[int]) -> Any:
        """Domain -> task -> nats per token after each of `steps`. size : a step size, or a factor on learned ones."""
        config, meta = self.configs[start], self.parameters[start]
        if start != META:
            chosen = INNER_OPTIMIZERS.build({"name": optimizer})
            loop = InnerLoop(optimizer=chosen, step_size=StepSizes(value=size, learn="none"))
        else:
            loop, meta = config.inner, adapting.scaled(meta, size)
        tasks = adapting.addresses(self.source, split, config.episodes, each)
        return {
            domain: adapting.log_perplexities(
                config, self.learners[start], self.source, meta, loop, config.episodes, of, steps
            )
            for domain, of in tasks.items()
        }

    def tuned(self, start: str) -> dict[str, Any]:
        """For each number of steps the optimizer and step size with the least loss on validation domains."""
        options = [(name, rate) for name, rates in RATES.items() for rate in rates]
        if start == META:
            options = [("sgd", factor) for factor in FACTORS]
        means = []
        for optimizer, rate in options:
            losses = self.adapted(start, optimizer, rate, "valid", self.size.tuning, list(adapting.STEPS))
            means.append(np.mean([np.mean(of, 0) for of in losses.values()], 0))
            print(f"tuning {start}, {optimizer} {rate}: {np.round(means[-1], 3)}", flush=True)
        return {
            str(steps): [*options[int(np.argmin([mean[place] for mean in means]))]]
            for place, steps in enumerate(adapting.STEPS)
        }

    def measured(self, start: str, chosen: dict[str, Any]) -> dict[str, Any]:
        """Steps -> domain -> the nats per token of each of its test tasks."""
        found: dict[str, Any] = {}
        for choice in sorted({tuple(choice) for choice in chosen.values()}):
            steps = [k for k in adapting.STEPS if tuple(chosen[str(k)]) == choice]
            losses = self.adapted(start, *choice, "test", self.size.testing, steps)
            for place, k in enumerate(steps):
                found[str(k)] = {domain: [task[place] for task in of] for domain, of in losses.items()}
            print(f"testing {start}, {choice}: done", flush=True)
        return found


def tasks_of(found: dict[str, Any], start: str, steps: int) -> list[float]:
    """The nats per token of all test tasks, domain by domain."""
    return [loss for of in found["test"][start][str(steps)].values() for loss in of]


def show(found: dict[str, Any], size: str) -> None:
    """The table, in perplexities."""
    print(f"perplexity of the test domains ({size}), 95 % over tasks")
    for start in found["test"]:
        for steps in adapting.STEPS:
            estimate = mean_interval(tasks_of(found, start, steps))
            mean, low, high = (np.exp(value) for value in asdict(estimate).values())
            optimizer, rate = found["chosen"][start][str(steps)]
            print(f"{start:13} {steps:3} steps: {mean:7.2f} ({low:.2f} … {high:.2f})  {optimizer} {rate}")
        print(flush=True)


def verdict(found: dict[str, Any]) -> int:
    """PASS or FALL SHORT; how many fall short."""
    show(found, "everything")
    (start, few), (other, many) = ASKED
    gain = paired_difference(tasks_of(found, other, many), tasks_of(found, start, few))
    flops = found["training"]["meta_flops"] / found["training"]["joint_flops"]
    said = "PASS" if gain.mean >= 0 else "FALL SHORT"
    print(
        f"{said:10}  {start} after {few} steps is {gain.mean:.3f} nats a token ({gain.low:.3f} … {gain.high:.3f}) "
        f"below {other} after {many}; asked for: 0 or more"
    )
    print(f"{'':10}  compute of the meta-learned start, relative to the joint one: {flops:.3f}")
    return int(gain.mean < 0)


if __name__ == "__main__":
    sys.exit(main())
