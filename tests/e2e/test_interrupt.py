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

STEPS = 60


def tree_of(model, output):
    return small_tree(model, output, outer__steps=STEPS, checkpoints__every=500)


def command(config):
    return [sys.executable, "-m", "metacl.cli", "train", str(config)]


def weights_hash(run, step):
    return hashlib.sha256((run / f"checkpoints/step-{step}/meta_params.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The model's folder, and the hash of what a run left alone ends with."""
    folder = tmp_path_factory.mktemp("undisturbed")
    model = save_tiny_bert(folder / "model")
    (folder / "config.yaml").write_text(yaml.safe_dump(tree_of(model, folder / "run")))
    subprocess.run(command(folder / "config.yaml"), check=True, capture_output=True)
    return model, weights_hash(folder / "run", STEPS)


@pytest.mark.parametrize(
    ("number", "workers"),
    [
        (signal.SIGINT, {"executor": "local"}),
        pytest.param(signal.SIGTERM, {"executor": "ray", "groups": 2}, marks=pytest.mark.ray),
    ],
)
def test_interrupted_and_resumed_equals_undisturbed(undisturbed, tmp_path, number, workers):
    model, expected = undisturbed
    config = tmp_path / "interrupted.yaml"
    config.write_text(yaml.safe_dump({**tree_of(model, tmp_path / "interrupted"), "workers": workers}))

    metrics = tmp_path / "interrupted/metrics.jsonl"
    process = subprocess.Popen(command(config), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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
    assert done and max(done) < STEPS

    subprocess.run(command(config), check=True, capture_output=True)
    assert weights_hash(tmp_path / "interrupted", STEPS) == expected
    lines = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert lines == list(range(1, STEPS + 1))
