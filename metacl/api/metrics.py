"""What a run wrote down of its steps, and what they cost."""

from __future__ import annotations

import json
from typing import Any

from metacl.coordination.run_folder import RunFolder


def read_metrics(folder: RunFolder) -> list[dict[str, Any]]:
    """The run's metrics, a dict a step; none if it took no step of its own."""
    if not folder.metrics.exists():
        return []
    return [json.loads(line) for line in folder.metrics.read_text("utf-8").splitlines()]


def training_cost(folder: RunFolder) -> dict[str, float]:
    """Sums over all steps of the run, earlier sessions included."""
    metrics = read_metrics(folder)
    return {
        "steps": len(metrics),
        "tasks": sum(line["tasks"] for line in metrics),
        "seconds": sum(line["seconds"] for line in metrics),
        "coordinator_seconds": sum(line["coordinator_seconds"] for line in metrics),
    }
