"""Ctrl-C in the middle of a run, then the same command again: the same bytes as a run left alone."""

import hashlib
import json
import signal
import subprocess
import sys
import time

import pytest
import yaml

from tests.small_runs import save_tiny_bert, small_tree


def command(config):
    return [sys.executable, "-m", "metacl.cli", "train", str(config)]


def weights_hash(run, step):
    return hashlib.sha256((run / f"checkpoints/step-{step}/meta_params.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("number", "workers"),
    [
        (signal.SIGINT, {"executor": "local"}),
        pytest.param(signal.SIGTERM, {"executor": "ray", "groups": 2}, marks=pytest.mark.ray),
        pytest.param(signal.SIGINT, {"executor": "ray", "groups": 1}, marks=pytest.mark.ray),
    ],
)
def test_interrupted_and_resumed_equals_undisturbed(tmp_path, number, workers):
    model = save_tiny_bert(tmp_path / "model")
    steps = 60
    for name in ("undisturbed", "interrupted"):
        tree = small_tree(model, tmp_path / name, outer__steps=steps, checkpoints__every=500)
        if name == "interrupted":
            tree["workers"] = workers
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(tree))
    subprocess.run(command(tmp_path / "undisturbed.yaml"), check=True, capture_output=True)

    metrics = tmp_path / "interrupted/metrics.jsonl"
    process = subprocess.Popen(
        command(tmp_path / "interrupted.yaml"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "Traceback" not in errors
    assert "The same command continues it" in " ".join(errors.split())
    done = [int(path.name.removeprefix("step-")) for path in (tmp_path / "interrupted/checkpoints").glob("step-*")]
    assert done and max(done) < steps

    subprocess.run(command(tmp_path / "interrupted.yaml"), check=True, capture_output=True)
    assert weights_hash(tmp_path / "interrupted", steps) == weights_hash(tmp_path / "undisturbed", steps)
    lines = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert lines == list(range(1, steps + 1))
