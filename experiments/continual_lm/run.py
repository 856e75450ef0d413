"""Makes the starts, chooses learning rates, learns the stream with every strategy from every start: see run.sh."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import joint  # of experiments/domain_lm: the same model, trained in the same way
import yaml

from metacl import load_config
from metacl.coordination.run_folder import write_text
from metacl.evaluation.statistics import Estimate, paired_difference
from metacl.learners.base import use_threads
from metacl.tasks.domain_source import DomainEpisodes

HERE = Path(__file__).parent
DATA = Path(os.environ.get("LM_DOMAINS", HERE / "../../../shared/data/lm_domains"))
VALIDATION = ["bible_wolof", "speeches_us_president", "shakespeare"]
"""A stream of other domains, which neither start was trained on, for learning rates."""
RATES = (0.03, 0.1, 0.3, 1.0)
LORA = {"rank": 8, "alpha": 16, "targets": ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]}
STARTS: dict[str, dict[str, Any]] = {
    "pretrained": {"learner.model": "joint"},
    "meta-learned": {"learner.model": "joint_half", "start": "meta"},
    "pretrained, LoRA": {"learner.model": "joint", "learner.adapter": LORA},
}
STRATEGIES: dict[str, list[dict[str, Any]]] = {
    "fine-tuning": [],
    "replay": [{"name": "replay", "memory": 100, "policy": "experience_balanced"}],
    "ewc": [{"name": "ewc", "strength": 100, "examples": 100, "step": "proximal"}],
    "a-gem": [{"name": "a_gem", "per_experience": 20, "batch": 16}],
    "merging": [{"name": "merging"}],
    "cumulative": [{"name": "cumulative"}],
    "o-lora": [{"name": "o_lora", "rank": 1}],
}
ROWS = [
    *((strategy, start) for strategy in list(STRATEGIES)[:-1] for start in ("pretrained", "meta-learned")),
    *((strategy, "pretrained, LoRA") for strategy in ("fine-tuning", "replay", "ewc", "o-lora")),
]
FORGETTING = "forgetting_chaudhry"
FEW = ("0", "1", "3", "5")


@dataclass(frozen=True)
class Size:
    """How much of it is done. half : joint steps of each half. meta : outer steps. domains : of the stream."""

    runs: str
    half: int
    meta: int
    domains: int
    rows: list[tuple[str, str]]


WHOLE = Size("whole", 400, 100, 5, ROWS)
SMALL = Size("check", 100, 25, 3, ROWS[:6])


def main() -> int:
    """See run.sh."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="a quarter of the training, three domains, three strategies"
    )
    options = parser.parse_args()
    if not DATA.is_dir():
        print(f"{DATA.resolve()} is not there: this experiment needs the text domains, which metacl does not carry.")
        return 2
    os.chdir(HERE)
    use_threads(1)
    found = Campaign(SMALL if options.check else WHOLE).run()
    if not options.check:
        write_text(HERE / "results.json", json.dumps(found) + "\n")
    return int(verdict(found) > 0)


class Campaign:
    """All runs of one size; what is there is not computed again."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.runs = Path("runs") / size.runs

    def run(self) -> dict[str, Any]:
        """Starts, rates, rows; what results.json holds."""
        seconds = kept(self.runs / "joint.json", self.train_joint)
        if not (self.runs / "meta" / "init" / "adaptation.json").exists():
            model, output = f"learner.model={self.runs}/joint_half", f"output={self.runs}/meta"
            metacl("train", "meta.yaml", model, output, f"outer.steps={self.size.meta}", f"data.path={DATA}")
        chosen = {
            start: kept(self.runs / f"rate {start}.json", partial(self.rate, start))
            for start in dict.fromkeys(start for _, start in self.size.rows)
        }
        rows = []
        for strategy, start in self.size.rows:
            rate = chosen[start]["rate"]
            found = self.learned(strategy, start, rate, f"{strategy} from {start}")
            keys = (
                "seed",
                "rows",
                "baseline",
                "curves",
                "metrics",
                "trainable_parameters",
                "replay_bytes",
                "state_bytes",
            )
            seeds = [{key: run[key] for key in keys} for run in found["seeds"]]
            rows.append({"strategy": strategy, "start": start, "metrics": found["metrics"], "seeds": seeds})
        names = [experience["name"] for experience in found["seeds"][0]["experiences"]]
        return {"domains": names, "joint_seconds": seconds, "rates": chosen, "rows": rows}

    def train_joint(self) -> tuple[float, float]:
        """Writes both joint models. Returns the seconds of each half."""
        config = load_config(Path("meta.yaml"), [f"data.path={DATA}"])
        source = config.data.open()
        assert isinstance(source, DomainEpisodes)
        folders = (self.runs / name for name in ("joint_half", "joint"))
        return joint.train(source, config.learner.max_length, self.size.half, *folders)

    def learned(self, strategy: str, start: str, rate: float, name: str, *overrides: str) -> dict[str, Any]:
        """results.json of one run of ``metacl continual``."""
        output = self.runs / name.replace(" ", "-").replace(",", "")
        given = {key: f"{self.runs}/{v}" if isinstance(v, str) else v for key, v in STARTS[start].items()}
        order = yaml.safe_load(Path("config.yaml").read_text())["stream"]["order"][: self.size.domains]
        told = {"strategies": STRATEGIES[strategy], "training.learning_rate": rate, "stream.order": order, **given}
        found = output / "results.json"
        if not found.exists() or json.loads(found.read_text())["seeds_missing"]:
            pairs = [f"{key}={json.dumps(value)}" for key, value in told.items()]
            metacl("continual", "config.yaml", f"output={output}", f"stream.data.path={DATA}", *pairs, *overrides)
        return json.loads(found.read_text())

    def rate(self, start: str) -> dict[str, Any]:
        """The learning rate that fine-tuning from a start ends best with on the validation domains, one seed."""
        nats = {}
        for rate in RATES:
            name, order = f"rate {rate} {start}", f"stream.order={json.dumps(VALIDATION)}"
            found = self.learned("fine-tuning", start, rate, name, order, "seeds=[100]", "measuring.curve=[]")
            nats[str(rate)] = -found["metrics"]["average_accuracy"]["mean"]
        return {"rate": min(RATES, key=lambda rate: nats[str(rate)]), "nats": nats}


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What `make` gives, made once."""
    if not path.exists():
        found = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(found, indent=1) + "\n")
    return json.loads(path.read_text())


def metacl(*arguments: str) -> None:
    """A command of the command line; what it says goes to this one's output."""
    subprocess.run([sys.executable, "-m", "metacl.cli", *arguments], check=True)


def verdict(found: dict[str, Any]) -> int:
    """What is asked for, by seed with intervals; how many lines fall short. What the start changes is only told."""
    rows = {(row["strategy"], row["start"]): row for row in found["rows"]}
    short = 0
    for start in ("pretrained", "meta-learned"):
        forgotten = of_seeds(rows["fine-tuning", start], FORGETTING)
        for name in ("replay", "ewc"):
            estimate = paired_difference(of_seeds(rows[name, start], FORGETTING), forgotten)
            holds = estimate.high < 0
            short += not holds
            said = f"{name} forgets less than fine-tuning, {start}: {nats(estimate)}"
            print(f"{'PASS' if holds else 'FALL SHORT'}  {said}")
    for name in ("fine-tuning", "replay"):
        here, there = rows[name, "meta-learned"], rows[name, "pretrained"]
        measures = {"forgetting": partial(of_seeds, name=FORGETTING)} | {
            f"after {steps} steps": partial(few_steps, steps=steps) for steps in ("1", "3")
        }
        for told, measure in measures.items():
            estimate = paired_difference(measure(here), measure(there))
            print(f"{name}, meta-learned − pretrained, {told}: {nats(estimate)}")
    return short


def nats(estimate: Estimate) -> str:
    """A difference and its interval."""
    return f"{estimate.mean:+.3f} nats a token ({estimate.low:+.3f} … {estimate.high:+.3f})"


def of_seeds(row: dict[str, Any], name: str) -> list[float]:
    """A number of each seed."""
    return [run["metrics"][name] for run in row["seeds"]]


def few_steps(row: dict[str, Any], steps: str) -> list[float]:
    """Nats a token of each domain's own test after so many steps of it, the mean over domains; of each seed."""
    return [sum(curve[steps] for curve in run["curves"]) / len(run["curves"]) for run in row["seeds"]]


if __name__ == "__main__":
    sys.exit(main())
