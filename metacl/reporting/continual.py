"""A continual run for a person: the table of its numbers, R as a heat map, the mean over what was met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metacl.reporting.plots import COLOURS, INK, _figure, _style, _svg

SHARES = (
    "average_accuracy",
    "average_incremental_accuracy",
    "learning_accuracy",
    "backward_transfer",
    "forward_transfer",
    "forward_transfer_from_start",
    "forgetting_chaudhry",
    "forgetting_mammoth",
    "forgetting_avalanche",
    "general_ability_change",
)
"""Shown in percent where R holds shares."""


def continual_table(results: Mapping[str, Any], console: Console) -> None:
    """Print the numbers of results.json with their intervals over seeds."""
    names = [strategy["name"] for strategy in results["strategies"]] or ["fine-tuning"]
    seeds = len(results["seeds"])
    console.print(Text(f"{results['run']}: {' + '.join(names)}, start {results['start']}, {seeds} seed(s)\n"))
    table = Table("", "mean", "95 % interval", box=None)
    for name, found in results["metrics"].items():
        if found is None:
            table.add_row(name.replace("_", " "), "–", "not defined: see metacl/continual/metrics.py")
            continue
        percent = name.startswith((*SHARES, "accuracy_after_")) and results["measure"] == "accuracy"
        scale, digits, unit = (100, 2, " %") if percent else (1, 3, "")
        interval = (
            "–" if "low" not in found else f"{scale * found['low']:.{digits}f} … {scale * found['high']:.{digits}f}"
        )
        table.add_row(name.replace("_", " "), f"{scale * found['mean']:.{digits}f}{unit}", interval)
    console.print(table)


def heat_map(results: Mapping[str, Any]) -> str:
    """R, mean over the seeds: rows learned, columns asked. An ``<svg>`` element."""
    r = _mean_rows(results)
    names = _names(results)
    with _style():
        figure, axes = _figure("asked", "after learning")
        shares = results["measure"] == "accuracy"
        image = axes.imshow(100 * r if shares else r, cmap="cividis", vmin=0, vmax=100 if shares else None)
        bar = figure.colorbar(image, label="accuracy, %" if shares else "nats per token")
        bar.outline.set_edgecolor(INK)
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        return _svg(figure, "heatmap")


def mean_curve(results: Mapping[str, Any]) -> str:
    """Mean over the experiences met so far, a faint line a seed, and the probe set. An ``<svg>`` element."""
    shares = results["measure"] == "accuracy"
    with _style():
        figure, axes = _figure("experiences learned", "mean over them, %" if shares else "mean nats per token")
        runs = [_met(np.array(run["rows"], dtype=float)) for run in results["seeds"]]
        runs = [100 * run if shares else run for run in runs]
        steps = np.arange(1, len(runs[0]) + 1)
        for run in runs:
            axes.plot(steps, run, color=COLOURS[1], alpha=0.3, linewidth=1)
        axes.plot(steps, np.mean(runs, axis=0), color=COLOURS[1], marker="o", label="mean over seeds")
        if results["seeds"][0].get("probe_baseline") is not None:
            asked = np.array([[run["probe_baseline"], *run["probe"]] for run in results["seeds"]])
            mean = np.mean(100 * asked if shares else asked, axis=0)
            axes.plot(range(len(mean)), mean, color=COLOURS[0], marker="s", linestyle="--", label="probe set")
        return _svg(figure, "mean")


def _names(results: Mapping[str, Any]) -> list[str]:
    """Of the experiences; where seeds have other orders, R is a mean by position, and so are the names."""
    (first, *others) = [[experience["name"] for experience in run["experiences"]] for run in results["seeds"]]
    return first if all(names == first for names in others) else [f"no. {place + 1}" for place in range(len(first))]


def _mean_rows(results: Mapping[str, Any]) -> np.ndarray:
    return np.mean([np.array(run["rows"], dtype=float) for run in results["seeds"]], axis=0)


def _met(rows: np.ndarray) -> np.ndarray:
    return np.array([rows[k, : k + 1].mean() for k in range(len(rows))])
