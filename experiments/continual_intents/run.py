"""The table: every strategy from every start, three seeds; and what the meta-learned start changes, paired by seed.

Called by run.sh. Every row is a run of ``metacl continual`` in runs/ and is not computed again when it is there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from metacl.evaluation.statistics import Estimate, mean_interval, paired_difference
from metacl.tasks.bundled import bundled_examples

HERE = Path(__file__).parent
RUNS = HERE / "runs"
STARTS = ("pretrained", "meta-learned", "joint")
STRATEGIES: dict[str, list[dict[str, Any]]] = {
    "fine-tuning": [],
    "replay": [{"name": "replay", "memory": 150, "policy": "class_balanced"}],
    "ewc": [{"name": "ewc", "strength": 100, "examples": 50, "step": "proximal"}],
    "lwf": [{"name": "lwf", "t_squared": True}],
    "der++": [{"name": "der_plus_plus", "memory": 150}],
    "a-gem": [{"name": "a_gem", "per_experience": 15, "batch": 30}],
    "la-maml": [{"name": "la_maml", "memory": 150, "arrive": 5, "step_size": 0.03, "head_step_size": 0.06}],
    "oml": [{"name": "oml", "memory": 150, "arrive": 5, "step_size": 0.2}],
    "merging": [{"name": "merging"}],
    "o-lora": [{"name": "o_lora", "rank": 2}],
    "si": [{"name": "si"}],
    "experts": [{"name": "experts"}],
    "gated experts": [{"name": "experts", "router": "learned"}],
    "mixed experts": [{"name": "experts", "router": "learned", "mixture": True}],
    "orthogonal subspace": [{"name": "orthogonal_subspace", "directions": 15}],
    "self-distillation": [{"name": "self_distillation"}],
    "hardening": [{"name": "hardening", "radius": 0.1}],
    "replay + ewc": [
        {"name": "replay", "memory": 150, "policy": "class_balanced"},
        {"name": "ewc", "strength": 100, "examples": 50, "step": "proximal"},
    ],
    # Explicit steps, which strength 100 makes diverge in the third domain.
    "ewc on the product": [{"name": "ewc", "strength": 1, "examples": 50, "on": "product"}],
    "nearest class mean": [{"name": "nearest_class_mean"}],
    "retrieval": [{"name": "retrieval"}],
    "bounded retrieval": [{"name": "retrieval", "memory": 150}],
    "prompt only": [{"name": "prompt_only"}],
    "cumulative": [{"name": "cumulative"}],
    "joint": [{"name": "joint"}],
}
SHOWN = ("average_accuracy", "learning_accuracy", "forgetting_chaudhry", "average_incremental_accuracy")
FEW = ("0", "1", "3", "5")
"""Steps of an experience after which its test is asked, as curves name them."""
OTHER = ("hwu64", "banking77")
"""What the starts are trained on."""
CHECKED = ("fine-tuning", "replay")
CHECKED_DOMAINS = 4


def metacl(*arguments: str) -> None:
    """A command of the command line; what it says goes to this one's output."""
    subprocess.run([sys.executable, "-m", "metacl.cli", *arguments], check=True, cwd=HERE)


def prepare(data: Path) -> None:
    """CLINC150 as one file of texts with labels, what domain each label is in, and the other data for the starts."""
    if (RUNS / "domains.json").exists():
        return
    RUNS.mkdir(exist_ok=True)
    parts = json.loads((data / "data_full.json").read_text())
    rows = [{"text": text, "label": label} for part in ("train", "val", "test") for text, label in parts[part]]
    write_rows(RUNS / "clinc150.jsonl", rows)
    known = {row["text"].strip().lower() for row in rows}
    found = [
        {"text": example.text, "label": f"{name}/{example.label}", "domain": name}
        for name in OTHER
        for example in bundled_examples(name)
    ]
    other = [row for row in found if row["text"].strip().lower() not in known]
    print(f"{len(found) - len(other)} texts of {' and '.join(OTHER)} are CLINC150's, too, and left out")
    write_rows(RUNS / "other.jsonl", other)
    (RUNS / "domains.json").write_text((data / "domains.json").read_text())


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def start_of(start: str) -> str | None:
    """The folder of a start, made if it is not there. Both are trained on `OTHER`."""
    if start == "pretrained":
        return None
    if start == "meta-learned":
        if not (RUNS / "meta" / "init" / "adaptation.json").exists():
            metacl("train", "meta.yaml")
        return "runs/meta"
    found = RUNS / "start" / "results.json"
    if not found.exists() or json.loads(found.read_text())["seeds_missing"]:
        stream = {"name": "classes", "data": {"path": "runs/other.jsonl"}, "experiences": 1, "train_per_class": 20}
        overrides = ["name=start", f"stream={json.dumps(stream)}", "training.epochs=3", "measuring.curve=[]"]
        metacl("continual", "config.yaml", *overrides)
    return "runs/start"


def row(strategy: str, start: str, output: str, *overrides: str) -> dict[str, Any]:
    """results.json of a strategy from a start; computed if it is not there."""
    found = RUNS / output / "results.json"
    if not found.exists() or json.loads(found.read_text())["seeds_missing"]:
        chosen = [f"strategies={json.dumps(STRATEGIES[strategy])}", f"start={json.dumps(start_of(start))}"]
        metacl("continual", "config.yaml", f"name={output}", *chosen, *overrides)
    return json.loads(found.read_text())


def name_of(strategy: str, start: str) -> str:
    """A folder's name."""
    return "-".join([*strategy.replace("+", "p").split(), start])


def values_of(results: dict[str, Any]) -> dict[str, list[float]]:
    """What is compared, a value of each seed; of few steps only where every experience took them."""
    runs = results["seeds"]
    found = {name: [run["metrics"][name] for run in runs] for name in SHOWN}
    if all(curve.keys() >= {*FEW} for run in runs for curve in run["curves"]):
        for steps in FEW:
            found[after(steps)] = [mean(curve[steps] for curve in run["curves"]) for run in runs]
    return found


def after(steps: str) -> str:
    """What the mean over experiences of the accuracy on their own test after so many steps is called."""
    return f"after {steps} steps"


CLAIMED = {after("3"): 1, "forgetting_chaudhry": -1}
"""What the claim is about, and the sign of a difference that is better."""


def versus(values: dict[str, list[float]], others: dict[str, list[float]]) -> dict[str, Estimate]:
    """What `values` has more than `others`, seed by seed, with 95 % intervals."""
    return {name: paired_difference(values[name], others[name]) for name in values if name in others}


def pairs(rows: list[dict[str, Any]], start: str) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Values from a start and from the pretrained one, of each strategy that has both."""
    found = {(row["strategy"], row["start"]): row["values"] for row in rows}
    both = [s for s in STRATEGIES if (s, start) in found and (s, "pretrained") in found]
    return {s: (found[s, start], found[s, "pretrained"]) for s in both}


def over_strategies(rows: list[dict[str, Any]], start: str) -> dict[str, Estimate]:
    """The mean difference of all strategies that have both, paired by seed: strategies of one seed share its texts.

    Of few steps, the mean of those that take steps.
    """
    both = list(pairs(rows, start).values())
    names = dict.fromkeys(name for pair in both for name in versus(*pair))

    def of_seeds(side: int, name: str) -> list[float]:
        found = [pair[side][name] for pair in both if all(name in values for values in pair)]
        return [mean(seed) for seed in zip(*found, strict=True)]

    return versus(*({name: of_seeds(side, name) for name in names} for side in (0, 1)))


PLACES = ("better", "worse", "neither")
"""Where a difference's interval can lie."""


def side(estimate: Estimate, sign: int) -> str:
    """Which of `PLACES` it is; sign : of a difference that is better."""
    low, high = sorted((sign * estimate.low, sign * estimate.high))
    return "better" if low > 0 else "worse" if high < 0 else "neither"


def sides(rows: list[dict[str, Any]], start: str) -> dict[str, Counter[str]]:
    """How many strategies have each claimed difference, and both of them, on which side of zero."""
    found = {name: Counter[str]() for name in (*CLAIMED, "both")}
    for pair in pairs(rows, start).values():
        differences = versus(*pair)
        where = {name: side(differences[name], sign) for name, sign in CLAIMED.items() if name in differences}
        for name, place in where.items():
            found[name][place] += 1
        for place in PLACES:
            found["both"][place] += [*where.values()].count(place) == len(CLAIMED)
        found["both"]["neither"] += len({*where.values()}) > 1
    return found


def percent(estimate: Estimate) -> str:
    """A mean and its interval in percent."""
    return f"{100 * estimate.mean:6.2f} ({100 * estimate.low:+.2f} … {100 * estimate.high:+.2f})"


def collect() -> dict[str, Any]:
    """All rows that are in runs/, or were in results.json with the same config; and what is missing."""
    config = yaml.safe_load((HERE / "config.yaml").read_text())
    known = json.loads((HERE / "results.json").read_text())
    before = {(row["strategy"], row["start"]): row for row in known["rows"] if known["config"] == config}
    rows, missing = [], []
    for strategy in STRATEGIES:
        for start in STARTS:
            path = RUNS / name_of(strategy, start) / "results.json"
            if path.exists() and not (found := json.loads(path.read_text()))["seeds_missing"]:
                r = [[[round(value, 6) for value in line] for line in run["rows"]] for run in found["seeds"]]
                rows.append({"strategy": strategy, "start": start, "values": values_of(found), "r": r})
            elif (strategy, start) in before:
                rows.append(before[strategy, start])
            else:
                missing.append(f"{strategy} from {start}")
    return {"config": config, "missing": missing, "rows": rows}


def show(rows: list[dict[str, Any]]) -> None:
    """The table, in percent with 95 % intervals over seeds."""
    for row in rows:
        figures = (f"{name.replace('_', ' ')} {percent(mean_interval(row['values'][name]))}" for name in SHOWN[:3])
        print(f"{row['strategy']:20} {row['start']:13} {', '.join(figures)}")
    for start in STARTS[1:]:
        for strategy, pair in pairs(rows, start).items():
            for name, estimate in versus(*pair).items():
                print(f"{strategy}: {start} − pretrained, {name.replace('_', ' ')}: {percent(estimate)}")
        for name, estimate in over_strategies(rows, start).items():
            print(f"mean over strategies: {start} − pretrained, {name.replace('_', ' ')}: {percent(estimate)}")
        for name, counts in sides(rows, start).items():
            print(f"{start}, {name.replace('_', ' ')}: {dict(counts)}")


def check(domains: list[str]) -> int:
    """Two strategies, two starts, a few domains. How many strategies the claim does not hold for, by the means."""
    print(f"the domains {', '.join(domains)}, three seeds")
    order = f"stream.order={json.dumps(domains)}"
    found = {
        strategy: versus(
            *(
                values_of(row(strategy, s, "check-" + name_of(strategy, s), order))
                for s in ("meta-learned", "pretrained")
            )
        )
        for strategy in CHECKED
    }
    short = 0
    for strategy, differences in found.items():
        for name, estimate in differences.items():
            print(f"{strategy}: meta-learned − pretrained, {name.replace('_', ' ')}: {percent(estimate)}")
        holds = all(sign * differences[name].mean > 0 for name, sign in CLAIMED.items())
        print(f"{strategy}: more after 3 steps and less forgotten: {'holds' if holds else 'DOES NOT HOLD'}")
        short += not holds
    return short


def main() -> int:
    """See run.sh."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--starts", default=",".join(STARTS))
    parser.add_argument("--show", action="store_true")
    asked = parser.parse_args()
    data = Path(os.environ.get("CLINC150", HERE.parents[2] / "shared" / "data" / "clinc150"))
    if not (data / "data_full.json").exists():
        print(f"{data}: no data_full.json; set CLINC150 to the folder with CLINC150's files.", file=sys.stderr)
        return 2
    prepare(data)
    if asked.check:
        return int(check(sorted(json.loads((RUNS / "domains.json").read_text()))[:CHECKED_DOMAINS]) > 0)
    if not asked.show:
        for start in asked.starts.split(","):
            for strategy in asked.strategies.split(","):
                began = time.perf_counter()
                row(strategy, start, name_of(strategy, start))
                print(f"{strategy} from {start}: {time.perf_counter() - began:.0f} s", flush=True)
    results = collect()
    (HERE / "results.json").write_text(json.dumps(results) + "\n")
    show(results["rows"])
    print(f"{len(results['missing'])} of {len(STRATEGIES) * len(STARTS)} rows are missing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
