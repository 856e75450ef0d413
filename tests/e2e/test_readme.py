"""What the README shows runs as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_python_example(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 1 and len([line for line in blocks[0].splitlines() if line.strip()]) <= 10
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    done = subprocess.run(
        [sys.executable, "-c", blocks[0]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    accuracy, prediction = done.stdout.strip().splitlines()[-2:]
    assert "'mean'" in accuracy
    assert "label='arrival'" in prediction
    assert (tmp_path / "runs/mine/report.html").exists()


def test_every_verb_in_the_table_exists():
    named = set(re.findall(r"`metacl (\w+)", README))
    shown = subprocess.run(
        [sys.executable, "-m", "metacl.cli", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert {"train", "evaluate", "adapt", "predict", "export", "doctor", "list"} <= named
    assert all(verb in shown for verb in named)


def test_every_config_of_the_larger_sets_loads():
    """Their data are not part of the repository, so they cannot be read here."""
    import metacl

    paths = sorted((ROOT / "configs/larger").glob("*.yaml"))
    assert len(paths) >= 5
    for path in paths:
        assert path.read_text("utf-8").startswith("# ") and "Cost: about" in path.read_text("utf-8")
        metacl.load_config(path)


def test_every_config_loads_and_its_data_is_there():
    import metacl
    from metacl.api import check_data
    from metacl.continual.config import load_continual_config

    for path in sorted((ROOT / "configs").glob("*.yaml")):
        assert path.read_text("utf-8").startswith("# "), f"{path} should open with what it shows and costs"
        if path.name == "continual.yaml":
            config = load_continual_config(path)
            assert len(config.stream.open(0)) == 5
        else:
            check_data(metacl.load_config(path))
