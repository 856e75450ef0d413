"""Trains config.yaml and keeps what it made, or checks what was kept: see run.sh."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from metacl.config import load_config
from metacl.coordination.checkpoint import load_checkpoint
from metacl.metagradients import adapt, plain_gradient
from metacl.tasks import TaskAddress

HERE = Path(__file__).parent
RUN = HERE / "runs" / "omniglot"
METACL = [sys.executable, "-m", "metacl.cli"]
ASKED_FOR = 0.97
FIRST = 300
"""Outer steps that a check trains anew."""
PART = 50
"""Steps whose losses are averaged for a point of the curve."""


def main() -> int:
    """Everything; README.md says what it costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="evaluate init/ and train the first steps anew")
    parser.add_argument("--progress", type=int, metavar="EPISODES", help="measure the newest checkpoint of a training")
    options = parser.parse_args()
    if options.progress:
        return progress(options.progress)
    return check() if options.check else everything()


def everything() -> int:
    """Train (or go on), then write results.json and init/."""
    subprocess.run([*METACL, "train", "config.yaml"], cwd=HERE, check=True)
    lines = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
    results = json.loads((RUN / "results.json").read_text())
    found = {
        "protocol": results["protocol"],
        "torch": torch.__version__,
        "training": {
            "tasks": sum(line["tasks"] for line in lines),
            "minutes": round(sum(line["seconds"] for line in lines) / 60, 1),
        },
        "rows": results["rows"],
        "first_loss": lines[0]["query_loss"],
        "curve": curve(lines),
    }
    (HERE / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    shutil.rmtree(HERE / "init", ignore_errors=True)
    shutil.copytree(RUN / "init", HERE / "init")
    return verdict(accuracy(found["rows"]))


def check() -> int:
    """What was kept, measured again: the initialization in full, the training by its first steps."""
    if not (HERE / "results.json").exists():
        print("FALL SHORT  results.json is not there: run.sh without --check writes it")
        return 1
    kept = json.loads((HERE / "results.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        protocol = kept["protocol"]
        shape = ["--ways", str(protocol["ways"]), "--shots", str(protocol["shots"]), "--queries", "5"]
        options = ["--steps", "0,1,3", "--episodes", str(protocol["episodes"]), "--json", str(rows)]
        subprocess.run([*METACL, "evaluate", str(HERE / "init"), *shape, *options, "--groups", "0"], check=True)
        short = verdict(accuracy(json.loads(rows.read_text())["rows"]))
        lines = first_steps(Path(folder) / "run")
    place = FIRST // PART - 1
    now, then = curve(lines)["query_loss"][place], kept["curve"]["query_loss"][place]
    same = abs(now / then - 1) < 0.1
    said = "PASS" if same else "FALL SHORT"
    steps = f"{FIRST - PART + 1} … {FIRST}"
    print(f"{said:10}  query loss of steps {steps}: {now:.4f}, kept: {then:.4f}, ten per cent allowed")
    print(f"{'':10}  loss of step 1: {lines[0]['query_loss']:.7f}, kept: {kept['first_loss']:.7f}")
    return int(short or not same)


def progress(episodes: int) -> int:
    """The newest checkpoint of a training that has not ended, on unseen characters."""
    (*_, newest) = sorted((RUN / "checkpoints").glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
    config, meta = load_config(RUN / "config.yaml"), load_checkpoint(newest).meta
    assert config.evaluation is not None
    learner, source, loop = config.learner.build(config.seed), config.data.open(), config.inner
    loop = loop.model_copy(update={"steps": 3})
    right = []
    for index in range(episodes):
        task = learner.prepare(source.episode(TaskAddress("test", 1, 0, index), config.evaluation.shape))
        problem = config.objective.problem(learner, meta, task, loop)
        with torch.no_grad():
            end = adapt(problem, plain_gradient(problem), problem.start(meta)).theta
            scores = config.objective.outputs(learner, config.objective.bind(end, meta), task.query)
        right.append((scores.argmax(-1) == task.query.targets).double().mean())
    found = torch.stack(right)
    half = 1.96 * float(found.std()) / episodes**0.5
    print(newest.name)
    return verdict({"mean": float(found.mean()), "low": float(found.mean()) - half, "high": float(found.mean()) + half})


def first_steps(output: Path) -> list[dict[str, Any]]:
    """The metrics of the first FIRST steps of config.yaml, which is then interrupted as by Ctrl-C."""
    running = subprocess.Popen([*METACL, "train", "config.yaml", f"output={output}"], cwd=HERE)
    metrics = output / "metrics.jsonl"
    while running.poll() is None:
        time.sleep(0.5)
        lines = metrics.read_text().splitlines()[:FIRST] if metrics.exists() else []
        if len(lines) == FIRST:
            running.send_signal(signal.SIGINT)
            running.wait()
            return [json.loads(line) for line in lines]
    raise SystemExit(f"the training ended by itself with exit code {running.returncode}")


def curve(lines: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Query losses, means over PART steps, by the tasks seen."""
    parts = [lines[begin : begin + PART] for begin in range(0, len(lines), PART)]
    tasks = [lines[0]["tasks"] * min(PART * (place + 1), len(lines)) for place in range(len(parts))]
    losses = [round(sum(line["query_loss"] for line in part) / len(part), 4) for part in parts]
    return {"tasks": tasks, "query_loss": losses}


def accuracy(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of the meta-learned start after three steps: mean, low and high."""
    (row,) = [row for row in rows if (row["method"], row["steps"]) == ("meta-learned", 3)]
    return row["accuracy"]


def verdict(found: dict[str, float]) -> int:
    """PASS or FALL SHORT; how many fall short."""
    said = "PASS" if found["mean"] >= ASKED_FOR else "FALL SHORT"
    mean, low, high = (100 * found[key] for key in ("mean", "low", "high"))
    print(f"{said:10}  5-way 1-shot after three steps: {mean:.2f} % ({low:.2f} … {high:.2f}), asked for: 97 %")
    return int(found["mean"] < ASKED_FOR)


if __name__ == "__main__":
    sys.exit(main())
