"""Every mistake a user can make on the command line: one clear message, the right exit code, nothing half-written."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from metacl.cli import main
from tests.small_runs import save_tiny_bert, small_tree


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("model") / "tiny")


def written(path: Path, tree) -> Path:
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    return path


def rows(count):
    """Eight classes of `count` examples each."""
    return "".join(
        json.dumps({"text": f"text {i} of {label}", "label": f"class {label}"}) + "\n"
        for label in range(8)
        for i in range(count)
    )


CONFIG_MISTAKES = [
    ("not YAML", "name: x\nouter: steps: 3\n", 2, ["line 2", "not YAML"]),
    ("not a mapping", "- a\n- b\n", 2, ["expected a mapping"]),
    ("unknown key", {"outre": {"steps": 3}}, 2, ["outre", "Did you mean 'outer'"]),
    ("unknown nested key", {"outer__stps": 3}, 2, ["outer.stps", "Did you mean 'steps'"]),
    ("unknown option of a component", {"data__datset": "x"}, 2, ["data.datset", "Did you mean 'dataset'"]),
    ("wrong type", {"outer__steps": "many"}, 2, ["outer.steps", "integer"]),
    ("negative", {"outer__tasks_per_step": 0}, 2, ["outer.tasks_per_step", "greater than 0"]),
    ("unknown objective", {"objective": "mamal"}, 2, ["objective", "'mamal'", "Did you mean 'maml'"]),
    ("impossible combination", {"learner__attention": "sdpa"}, 2, ["learner.attention=eager", "first_order"]),
    ("local with two groups", {"workers__groups": 2}, 2, ["workers.groups", "workers.executor=ray"]),
    ("unknown model", {"learner__model": "no/such-model"}, 2, ["learner.model", "no/such-model"]),
    ("unknown model folder", {"learner__model": "./weights"}, 2, ["learner.model", "not a folder here"]),
    ("unknown target", {"learner__adapter__targets": ["q_proj"]}, 2, ["learner.adapter.targets", "query"]),
    ("too many layers", {"learner__adapter__last_layers": 9}, 2, ["last_layers", "3 layers"]),
    ("text too long", {"learner__max_length": 5000}, 2, ["learner.max_length", "512"]),
    ("unknown data set", {"data__dataset": "bankin77"}, 2, ["data.dataset", "Did you mean 'banking77'"]),
    ("unknown split", {"data__class_split": "9"}, 2, ["data.class_split", "01"]),
    ("more ways than classes", {"episodes__ways": 26}, 2, ["26 classes", "25", "episodes.ways"]),
    ("evaluation with too many ways", {"evaluation__shape": {"ways": 28}}, 2, ["28 classes", "27", "test"]),
    ("class too small", {"episodes__shots": 400}, 2, ["402 different examples", "episodes.shots"]),
    (
        "more GPUs than there are",
        {"workers": {"executor": "ray", "groups": 9, "gpus_per_group": 1}},
        3,
        ["9 groups x 1 GPUs", "has 0"],
    ),
    ("bad address", {"workers": {"executor": "ray", "address": "nowhere"}}, 2, ["workers.address", "host:port"]),
]


@pytest.mark.parametrize(
    ("change", "code", "parts"), [c[1:] for c in CONFIG_MISTAKES], ids=[c[0] for c in CONFIG_MISTAKES]
)
def test_config_mistakes(run, tmp_path, model, change, code, parts):
    tree = change if isinstance(change, str) else small_tree(model, tmp_path / "out", **change)
    found, message = run("train", written(tmp_path / "run.yaml", tree))
    assert found == code, message
    for part in parts:
        assert part in message
    assert not (tmp_path / "out").exists()


def test_config_missing(run):
    code, message = run("train", "nothing.yaml")
    assert code == 2 and "nothing.yaml" in message and "no such config file" in message


@pytest.mark.parametrize(
    ("override", "part"), [("steps", "key=value"), ("outr.steps=3", "'outer'"), ("outer.steps=[", "YAML")]
)
def test_bad_overrides(run, tmp_path, model, override, part):
    code, message = run("train", written(tmp_path / "run.yaml", small_tree(model, tmp_path / "out")), override)
    assert code == 2 and part in message


DATA_MISTAKES = [
    ("missing", None, ["no such file"]),
    ("empty", "", ["no rows"]),
    ("row without label", rows(4) + '{"text": "lonely"}\n', ["line 33", "'label'"]),
    ("empty text", rows(4) + '{"text": " ", "label": "x"}\n', ["line 33", "'text'", "empty"]),
    ("not JSON", rows(4) + "{text: x}\n", ["line 33", "not JSON"]),
    ("class too small", rows(4) + '{"text": "one", "label": "rare"}\n', ["'rare' (1)"]),
    ("not UTF-8", rows(4).encode() + '{"text": "café", "label": "x"}'.encode("latin-1"), ["line 33", "UTF-8"]),
]


@pytest.mark.parametrize(("content", "parts"), [m[1:] for m in DATA_MISTAKES], ids=[m[0] for m in DATA_MISTAKES])
def test_data_mistakes(run, tmp_path, model, content, parts):
    data = tmp_path / "data.jsonl"
    if content is not None:
        data.write_bytes(content if isinstance(content, bytes) else content.encode())
    tree = small_tree(model, tmp_path / "out")
    tree["data"] = {"name": "labelled_text", "path": str(data), "fractions": [1.0, 0.0, 0.0]}
    code, message = run("train", written(tmp_path / "run.yaml", tree))
    assert code == 2, message
    for part in ["data.jsonl", *parts]:
        assert part in message
    assert not (tmp_path / "out").exists()


def test_output_holds_a_different_run(run, tmp_path, model):
    config = written(tmp_path / "run.yaml", small_tree(model, tmp_path / "out", outer__steps=1))
    main_ok(config)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    code, message = run("train", config, "seed=5")
    assert code == 2 and "holds a different run" in message and "seed: 0 -> 5" in message
    code, message = run("train", config, "--resume", "never")
    assert code == 2 and "already holds a run" in message
    code, message = run("train", config, "--resume", "somewhere")
    assert code == 2 and "--resume somewhere" in message
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}


def main_ok(config):
    with pytest.raises(SystemExit) as exit_:
        main(["train", str(config)])
    assert exit_.value.code == 0


def test_output_is_somebody_elses_folder(run, tmp_path, model):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/letter.txt").write_text("hello")
    code, message = run("train", written(tmp_path / "run.yaml", small_tree(model, tmp_path / "out")))
    assert code == 2 and "not the folder of a run" in message
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["letter.txt"]


def train_against(address, tmp_path, model):
    """Train in a process of its own: this one may already be connected to a cluster of the tests."""
    tree = small_tree(model, tmp_path / "out", workers={"executor": "ray", "address": address})
    command = [sys.executable, "-m", "metacl.cli", "train", str(written(tmp_path / "run.yaml", tree))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr
    return done.returncode, " ".join(done.stderr.split())


@pytest.mark.ray
def test_nobody_answers_at_the_ray_address(tmp_path, model):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code, message = train_against(f"127.0.0.1:{port}", tmp_path, model)
    assert code == 3 and "nobody answers" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.ray
def test_something_else_answers_at_the_ray_address(tmp_path, model):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        code, message = train_against(f"127.0.0.1:{server.getsockname()[1]}", tmp_path, model)
    assert code == 3 and "not a healthy Ray head" in message


def test_adapt_and_predict_mistakes(run, tmp_path, model):
    main_ok(written(tmp_path / "run.yaml", small_tree(model, tmp_path / "out", outer__steps=1)))
    good = tmp_path / "good.csv"
    good.write_text("text,label\nhello there,greeting\ngood bye,parting\n")
    code, message = run("adapt", tmp_path / "out", "--data", tmp_path / "none.csv", "--output", tmp_path / "m")
    assert code == 2 and "no such file" in message
    code, message = run("adapt", tmp_path, "--data", good, "--output", tmp_path / "m")
    assert code == 2 and "not an initialization" in message
    code, message = run("adapt", tmp_path / "out", "--data", good, "--text-column", "body", "--output", tmp_path / "m")
    assert code == 2 and "'body'" in message and "'text', 'label'" in message
    assert not (tmp_path / "m").exists()
    code, message = run("adapt", tmp_path / "out", "--data", good, "--output", tmp_path / "m")
    assert code == 0 and "saved in" in message
    code, message = run("predict", tmp_path / "m")
    assert code == 2 and "--text or --file" in message
    code, message = run("predict", tmp_path / "m", "--text", " ")
    assert code == 2 and "text 1 is empty" in message
    code, message = run("predict", tmp_path / "m", "--text", "hello you", "--json")
    assert code == 0 and '"greeting"' in message
    code, message = run("evaluate", tmp_path / "out", "--shots", "one")
    assert code == 2 and "--shots 'one'" in message
    code, message = run("evaluate", tmp_path / "out", "--ways", "99")
    assert code == 2 and "99" in message
    code, message = run("export", tmp_path / "nowhere", tmp_path / "x")
    assert code == 2 and "not an initialization" in message
