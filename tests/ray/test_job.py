"""``ray job submit -- python ray_jobs/train.py …`` on a running head does the same job: same bytes as a local run."""

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

import metacl
from metacl import api
from metacl.continual.config import continual_config_from_dict
from tests.small_runs import save_tiny_bert, small_config, small_tree

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A head of its own, in the foreground, so that ending it ends nobody else's cluster (`ray stop` would).

    Yields (address, dashboard, environment): Ray wants the token that the head was started with.
    """
    folder = tmp_path_factory.mktemp("head")
    (folder / "token").write_text(secrets.token_hex(32))
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    port, dashboard_port = free_port(), free_port()
    command = [
        RAY,
        "start",
        "--head",
        "--block",
        f"--port={port}",
        f"--dashboard-port={dashboard_port}",
        "--num-cpus=2",
    ]
    # Fixed default ports may be taken by another head on this machine; without its agent's port it takes no jobs.
    for name in ("ray-client-server-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port"):
        command.append(f"--{name}={free_port()}")
    command.append("--disable-usage-stats")
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    dashboard = f"http://127.0.0.1:{dashboard_port}"
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{dashboard}/api/version", timeout=2).close()
        except urllib.error.HTTPError:
            break  # it answers, and asks for the token
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        else:
            break
    yield f"127.0.0.1:{port}", dashboard, environment
    process.terminate()
    process.wait(timeout=60)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def expected(model, tmp_path_factory):
    """The bytes that a local run trains."""
    config = small_config(model, tmp_path_factory.mktemp("local") / "run")
    metacl.train(config)
    return trained_bytes(config.folder)


def trained_bytes(run):
    return (run / "checkpoints/step-5/meta_params.safetensors").read_bytes()


def said_by_job(head, script, tree, folder):
    """What a job prints; it must succeed."""
    _, dashboard, environment = head
    (folder / "work").mkdir()
    for name in ("metacl", "ray_jobs"):
        (folder / "work" / name).symlink_to(ROOT / name)
    (folder / "work/small.yaml").write_text(yaml.safe_dump(tree))
    command = [RAY, "job", "submit", "--address", dashboard, "--working-dir", str(folder / "work"), "--"]
    command += [sys.executable, f"ray_jobs/{script}", "small.yaml", f"output={folder / 'job'}"]
    for _ in range(10):
        submitted = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=400)
        if "No available agent" not in submitted.stderr:  # the head answers a little before it takes jobs
            break
        time.sleep(3)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    return submitted.stdout


def test_job_trains_the_same_bytes(head, model, expected, tmp_path):
    tree = small_tree(model, tmp_path / "job", workers={"executor": "ray", "groups": 2})
    said = said_by_job(head, "train.py", tree, tmp_path)
    assert "training: step 5/5 done" in said  # its progress is on the job's page
    assert trained_bytes(tmp_path / "job") == expected


def test_job_learns_a_stream_to_the_same_bytes(head, model, tmp_path):
    for k in range(2):
        rows = [f"text {i} about {c},class {c}{k}" for c in "ab" for i in range(6)]
        (tmp_path / f"{k}.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    files = [{"name": f"e{k}", **{part: str(tmp_path / f"{k}.csv") for part in ("train", "test")}} for k in range(2)]
    tree = {
        "name": "small",
        "learner": {"name": "text_classifier", "model": str(model), "max_length": 16},
        "stream": {"name": "files", "experiences": files},
        "output": str(tmp_path / "local"),
    }
    api.continual(continual_config_from_dict(tree))
    said = said_by_job(head, "continual.py", {**tree, "workers": {"groups": 2}}, tmp_path)
    assert "seed 0: 2/2 e1:" in said
    stored = "seed-0/checkpoints/step-2/meta_params.safetensors"
    assert (tmp_path / "job" / stored).read_bytes() == (tmp_path / "local" / stored).read_bytes()


def test_training_from_outside_by_address(head, model, expected, tmp_path):
    address, _, environment = head
    tree = small_tree(model, tmp_path / "run", workers={"executor": "ray", "groups": 2, "address": address})
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree))
    command = [sys.executable, "-m", "metacl.cli", "train", str(tmp_path / "small.yaml")]
    planned = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, env=environment, timeout=200)
    assert planned.returncode == 0, planned.stderr
    assert f"the cluster at {address}: 2 CPUs, 0 GPUs" in planned.stdout
    assert not (tmp_path / "run").exists()
    trained = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=400)
    assert trained.returncode == 0, trained.stderr
    assert trained_bytes(tmp_path / "run") == expected


def test_plugins_travel_to_the_workers(head, model, tmp_path):
    """A plugin says from where it could be imported: in a worker, from the copy that Ray unpacked, too.

    On one machine a worker also sees this folder, which Ray puts on its path as it was on the driver's.
    """
    address, _, environment = head
    said = tmp_path / "said"
    (tmp_path / "only_here.py").write_text(
        "import sys\nfrom pathlib import Path\nfrom metacl.objectives import OBJECTIVES, ProtoMAML\n"
        "copies = [place for place in sys.path if (Path(place) / 'only_here.py').exists()]\n"
        f"open({str(said)!r}, 'a').write(' '.join(copies) + chr(10))\n"
        "@OBJECTIVES.register('only_here')\nclass OnlyHere(ProtoMAML):\n    'ProtoMAML.'\n"
    )
    tree = small_tree(model, tmp_path / "run", workers={"executor": "ray", "groups": 1, "address": address})
    tree.update(plugins=["only_here"], objective="only_here")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree))
    command = [sys.executable, "-m", "metacl.cli", "train", "small.yaml"]
    path = {**environment, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=path, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    driver, *workers = said.read_text().splitlines()
    assert "py_modules" not in driver
    assert workers and all("py_modules" in copies for copies in workers), workers
