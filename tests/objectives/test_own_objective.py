"""The page "Write your own objective" executed as it stands, and `metacl new objective`, each in a new folder."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import metacl.objectives
from metacl.cli import main
from metacl.errors import ConfigError
from metacl.scaffold import new_objective

ROOT = Path(__file__).parents[2]
PAGE = Path(metacl.objectives.__file__).with_name("README.md").read_text("utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def in_folder(folder, *command):
    """Runs a command as a user in `folder` would; what it printed."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_page(tmp_path):
    written = []
    for text in blocks("python") + blocks("yaml"):
        name = text.split("\n", 1)[0].removeprefix("# ")
        (tmp_path / name).write_text(text)
        written.append(name)
    assert written == ["smoothed.py", "smoothed.yaml"], "one file and one config"
    (commands,) = blocks("bash")
    for tool, call in (("metacl", "-m metacl.cli"), ("python", "")):
        (tmp_path / tool).write_text(f'#!/bin/sh\nexec {sys.executable} {call} "$@"\n')
        (tmp_path / tool).chmod(0o755)
    script = f"set -e\nPATH={tmp_path}:$PATH\nexport PYTHONPATH={ROOT}:.\n{commands}"
    said = in_folder(tmp_path, "bash", "-c", script)
    assert "Smoothed: right." in said
    assert "smoothing: 0.2" in said, "the dry run shows the option"
    assert (tmp_path / "runs/smoothed/init/head.safetensors").exists()
    lines = (tmp_path / "runs/smoothed/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]


def test_the_pages_table_names_every_method_that_can_be_overridden():
    table = PAGE[PAGE.index("## What can be overridden") :]
    own = {name for name, value in vars(metacl.objectives.MetaObjective).items() if callable(value)}
    own -= {name for name in own if name.startswith("_")} | {"meta_parameters", "learned_names"}
    assert [name for name in sorted(own) if f"`{name}(" not in table] == []


@pytest.mark.slow
def test_new_objective_and_its_test_pass_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(["new", "objective", "my_own_idea"])
    assert exit_.value.code == 0
    assert "my_own_idea.py" in capsys.readouterr().out
    said = in_folder(tmp_path, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_own_idea.py")
    assert "2 passed" in said
    assert "class MyOwnIdea(MAML)" in (tmp_path / "my_own_idea.py").read_text()


@pytest.mark.parametrize(
    ("name", "part"),
    [("maml", "has one of that name"), ("My-Idea", "small letters"), ("class", "small letters"), ("there", "exists")],
)
def test_new_objective_refuses(tmp_path, name, part):
    (tmp_path / "test_there.py").write_text("mine")
    with pytest.raises(ConfigError, match=part):
        new_objective(name, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["test_there.py"]
