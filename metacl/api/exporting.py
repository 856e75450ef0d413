"""A run's initialization, taken elsewhere."""

from __future__ import annotations

from pathlib import Path

from metacl.initialization import read_initialization, write_initialization
from metacl.learners.base import parameter_count


def export_initialization(run: Path, folder: Path) -> tuple[int, int]:
    """Copy a run's initialization to `folder`. Returns its tensors and the numbers in them.

    Raises `DataError` if the run has none, `TrainingError` if a tensor is empty or not finite.
    """
    source = run / "init" if (run / "init" / "adaptation.json").exists() else run
    stored = read_initialization(source)
    learner = stored.config.learner.build(stored.config.seed)
    card = (source / "README.md").read_text("utf-8")
    write_initialization(folder, stored.config, learner, stored.meta, stored.trained_steps, card)
    return len(stored.meta), parameter_count(stored.meta)
