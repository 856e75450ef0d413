"""picture.svg: the coordinator's part of a step over the number of groups, a line a gradient size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

COLOURS = {1_000_000: "#009E73", 40_000_000: "#0072B2", 160_000_000: "#D55E00"}


def draw(results: dict[str, Any], path: Path) -> None:
    """Points were measured; lines are the straight-line cost a task and a step."""
    groups = (4, 8, 16, 32, 64, 128, 256)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "metacl", "font.size": 10.0}):
        figure = Figure(figsize=(7.0, 4.2), layout="constrained")
        axes = figure.subplots()
        for parameters, colour in COLOURS.items():
            cost = results[f"cost {parameters}"]
            label = f"{parameters // 1_000_000} M parameters"
            line = [cost["a_step_s"] + 4 * count * cost["a_task_s"] for count in groups]
            axes.plot(groups, line, color=colour, label=label)
            points = [value for key, value in results.items() if key.startswith(f"simulated {parameters} ")]
            axes.plot([p["groups"] for p in points], [p["coordinator_s"] for p in points], "o", color=colour)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(groups, [str(count) for count in groups])
        axes.set_xlabel("groups, four tasks each")
        axes.set_ylabel("coordinator's seconds a step")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, metadata={"Date": None})
