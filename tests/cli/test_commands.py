"""Options that do not go together are refused before any work; suggested commands can be pasted."""

import json
import sys
from pathlib import Path

import pytest

from metacl import api
from metacl.api import measuring
from metacl.cli import main, training
from metacl.config import config_from_dict
from metacl.errors import DataError
from metacl.initialization import read_initialization, write_initialization
from tests.small_runs import save_tiny_bert, small_config


@pytest.fixture(scope="module")
def init(tmp_path_factory):
    """An initialization that was never trained."""
    folder = tmp_path_factory.mktemp("start")
    config = small_config(save_tiny_bert(folder / "tiny"), folder / "out")
    learner, meta = api.starting_point(config)
    write_initialization(folder / "init", config, learner, meta, 0, "card")
    return folder / "init"


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    """Runs a command that must be refused before anything is measured or adapted; what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(api, "evaluate", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr("metacl.initialization.load_initialization", lambda *_: pytest.fail("loaded"))

    def call(*arguments):
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        said = " ".join(capsys.readouterr().err.split())
        assert exit_.value.code == 2, said
        return said

    return call


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    rows = [{"text": f"text {i} of {label}", "label": label} for label in "abc" for i in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--shots", "1,900"], "900"),
        (["--json", "nowhere/results.json"], "folder nowhere does not exist"),
        (["--text-column", "body"], "--text-column"),
        (["--data", "hwu64", "--label-column", "intent"], "--label-column"),
        (["--data", "texts.jsonl", "--class-split", "02"], "--class-split"),
        (["--report", "texts.jsonl"], "this is a file; name a folder"),
        (["--report", "nowhere/report"], "nowhere does not exist"),
    ],
)
def test_evaluate_refuses_first(init, refused, texts, options, part):
    assert part in refused("evaluate", init, *options)


def test_every_shot_count_is_measured(init, texts, monkeypatch, tmp_path):
    monkeypatch.setattr("metacl.reporting.closing_table", lambda *_: None)
    monkeypatch.setattr(api, "evaluate", lambda stored, config, *_: config.evaluation.shape.shots)
    arguments = ["--data", texts, "--ways", 2, "--shots", "1,3", "--queries", 2, "--json", tmp_path / "found.json"]
    with pytest.raises(SystemExit) as exit_:
        main([str(part) for part in ("evaluate", init, *arguments)])
    assert exit_.value.code == 0
    assert json.loads((tmp_path / "found.json").read_text()) == [1, 3]


def test_every_method_and_the_rates_that_validation_chose(init, tmp_path, monkeypatch):
    """Splits of its own: 4 classes to choose learning rates by, 4 to be measured on."""
    monkeypatch.setattr(measuring, "VALIDATION_EPISODES", 2)
    rows = [{"text": f"text {i} of {label}", "label": label} for label in "abcdefgh" for i in range(6)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stored = read_initialization(init)
    tree = stored.config.to_dict()
    tree["data"] = {"name": "labelled_text", "path": tmp_path / "own.jsonl", "fractions": (0.0, 0.5, 0.5)}
    tree["evaluation"] = {"shape": {"ways": 2, "shots": 2, "queries": 2}, "episodes": 3, "steps": (0, 1)}

    def everything(tree):
        return api.evaluate(stored, config_from_dict(tree, origin="test"), methods=["all"])

    results = everything(tree)
    tuned = {row["method"] for row in results["rows"] if row["method"].startswith("fine-tuning")}
    assert tuned == {f"fine-tuning, {what}" for what in ("all parameters", "last layers", "LoRA", "IA3", "prompt")}
    options = [(one["option"], len(one["validation_accuracies"])) for one in results["chosen"]]
    assert sorted(options) == [*[("C", 3)] * 2, *[("learning rate", 4)] * 5]
    for one in results["chosen"]:
        reached = list(one["validation_accuracies"].items())
        assert f"{one['chosen']:g}" == max(reached, key=lambda pair: (pair[1], -reached.index(pair)))[0]
    (first, *_) = results["examples"]
    assert {one["true"] for one in first["query"]} == set(first["classes"])
    tree["data"]["fractions"] = (0.0, 0.0, 1.0)
    assert not any("fine-tuning" in row["method"] for row in everything(tree)["rows"])
    with pytest.raises(DataError, match="--methods fine_tuning: it is tuned on validation classes"):
        api.evaluate(stored, config_from_dict(tree, origin="test"), methods=["fine_tuning"])


def test_adapt_refuses_a_taken_folder_before_loading(init, refused, texts, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/letter.txt").write_text("hello")
    assert "not an adapted model" in refused("adapt", init, "--data", texts, "--output", "taken")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A virtual environment in the current folder, which has a space in its name."""
    here = tmp_path / "my project"
    (here / ".venv/bin").mkdir(parents=True)
    for name in ("python", "metacl"):
        (here / ".venv/bin" / name).write_text("#!/bin/sh\n")
        (here / ".venv/bin" / name).chmod(0o755)
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "executable", str(here / ".venv/bin/python"))
    monkeypatch.setenv("PATH", "/nowhere")
    return here


def test_commands_start_with_the_tool_of_this_environment(installed, monkeypatch, tmp_path):
    assert [line.split()[0] for line in training._next_commands(Path("runs/x"))] == [".venv/bin/metacl"] * 3
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(installed / ".venv/bin/python"))
    assert training._next_commands(Path("x"))[0].startswith("'my project/.venv/bin/metacl' evaluate")
    monkeypatch.setenv("PATH", str(installed / ".venv/bin"))
    assert training._next_commands(Path("x"))[0].startswith("metacl evaluate x ")
    (installed / ".venv/bin/metacl").unlink()
    assert training._next_commands(Path("x"))[0].startswith("'my project/.venv/bin/python' -m metacl.cli evaluate")


def test_commands_name_the_example_only_where_it_is(installed):
    assert "example_tickets" not in training._next_commands(Path("my runs"))[1]
    assert "'my runs'" in training._next_commands(Path("my runs"))[1]
    Path("configs").mkdir()
    Path("configs/example_tickets.csv").touch()
    assert "--data configs/example_tickets.csv" in training._next_commands(Path("x"))[1]
