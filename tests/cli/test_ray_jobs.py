"""The scripts that are submitted to Ray are the verbs, and say so where their files would be lost with the session."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("verb", "given"), [("train", []), ("continual", ["output=/shared/run"])])
def test_a_job_is_its_verb(verb, given, tmp_path):
    command = [sys.executable, ROOT / "ray_jobs" / f"{verb}.py", *given, "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=True).stdout
    assert f"{verb}.py {verb} [OPTIONS]" in said
    assert said.startswith(f"note: no output=… given; files go below {tmp_path}, ") == (not given)
