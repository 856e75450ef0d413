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
from pathlib import Path
from typing import Any

import yaml

from metacl.evaluation.statistics import paired_difference
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
    "merging": [{"name": "merging"}],
    "o-lora": [{"name": "o_lora", "rank": 2}],
    "si": [{"name": "si"}],
    "experts": [{"name": "experts"}],
    "orthogonal subspace": [{"name": "orthogonal_subspace", "directions": 15}],
    "self-distillation": [{"name": "self_distillation"}],
    "hardening": [{"name": "hardening", "radius": 0.1}],
    "replay + ewc": [
        {"name": "replay", "memory": 150, "policy": "class_balanced"},
        {"name": "ewc", "strength": 100, "examples": 50, "step": "proximal"},
    ],
    "ewc on the product": [{"name": "ewc", "strength": 100, "examples": 50, "on": "product"}],
    "nearest class mean": [{"name": "nearest_class_mean"}],
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
    """The folder of a start; the joint one is made if it is not there. Both are trained on `OTHER`."""
    if start == "pretrained":
        return None
    if start == "meta-learned":
        return "init"
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


def few_steps(run: dict[str, Any], steps: str) -> float:
    """Mean over experiences of the accuracy on their own test after so many steps."""
    return sum(curve[steps] for curve in run["curves"]) / len(run["curves"])


def versus(results: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What `results` has more than `other`, seed by seed, with 95 % intervals."""
    pairs = list(zip(results["seeds"], other["seeds"], strict=True))
    found = {
        name: paired_difference([a["metrics"][name] for a, _ in pairs], [b["metrics"][name] for _, b in pairs])
        for name in SHOWN
    }
    if all(curve.keys() >= set(FEW) for pair in pairs for run in pair for curve in run["curves"]):
        for steps in FEW:
            both = ([few_steps(run, steps) for run in runs] for runs in zip(*pairs, strict=True))
            found[f"after {steps} steps"] = paired_difference(*both)
    return {name: vars(estimate) for name, estimate in found.items()}


def percent(estimate: dict[str, float]) -> str:
    """A mean and its interval in percent."""
    return f"{100 * estimate['mean']:6.2f} ({100 * estimate['low']:+.2f} … {100 * estimate['high']:+.2f})"


def collect() -> dict[str, Any]:
    """All rows that are there, what the other starts change, and what is missing."""
    rows, missing = {}, []
    for strategy in STRATEGIES:
        for start in STARTS:
            path = RUNS / name_of(strategy, start) / "results.json"
            if path.exists() and not json.loads(path.read_text())["seeds_missing"]:
                rows[strategy, start] = json.loads(path.read_text())
            else:
                missing.append(f"{strategy} from {start}")
    return {
        "config": yaml.safe_load((HERE / "config.yaml").read_text()),
        "missing": missing,
        "rows": [
            {
                "strategy": strategy,
                "start": start,
                "metrics": found["metrics"],
                "curve": {s: sum(few_steps(run, s) for run in found["seeds"]) / len(found["seeds"]) for s in FEW}
                if all(FEW[-1] in curve for run in found["seeds"] for curve in run["curves"])
                else None,
                "r": [run["rows"] for run in found["seeds"]],
                "versus_pretrained": versus(found, rows[strategy, "pretrained"])
                if start != "pretrained" and (strategy, "pretrained") in rows
                else None,
            }
            for (strategy, start), found in rows.items()
        ],
    }


def show(rows: list[dict[str, Any]]) -> None:
    """The table, in percent with 95 % intervals over seeds."""
    for found in rows:
        figures = ", ".join(f"{name.replace('_', ' ')} {percent(found['metrics'][name])}" for name in SHOWN[:3])
        print(f"{found['strategy']:20} {found['start']:13} {figures}")
        for name, estimate in (found["versus_pretrained"] or {}).items():
            print(f"    against pretrained, paired by seed: {name.replace('_', ' '):30} {percent(estimate)}")


def check(domains: list[str]) -> int:
    """Two strategies, two starts, a few domains. Non-zero if the claim does not hold for the means."""
    print(f"the domains {', '.join(domains)}, three seeds")
    short = 0
    for strategy in CHECKED:
        order = f"stream.order={json.dumps(domains)}"
        pair = [row(strategy, s, "check-" + name_of(strategy, s), order) for s in ("meta-learned", "pretrained")]
        found = versus(*pair)
        for name, estimate in found.items():
            print(f"{strategy}: meta-learned − pretrained, {name.replace('_', ' ')}: {percent(estimate)}")
        few, forgetting = found["after 3 steps"]["mean"], found["forgetting_chaudhry"]["mean"]
        holds = few > 0 and forgetting < 0
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
        for strategy in asked.strategies.split(","):
            for start in asked.starts.split(","):
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
