"""picture.svg: peak memory over the size of the file, with the index and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure


def draw(results: dict[str, Any], path: Path) -> None:
    """Every point is the peak of a process of its own."""
    sizes = [result["bytes"] / 1e9 for result in results.values()]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "metacl", "font.size": 10.0}):
        figure = Figure(figsize=(6.0, 3.8), layout="constrained")
        axes = figure.subplots()
        for kind, label, colour in (
            ("building", "building the index, then sampling", "#0072B2"),
            ("cached", "sampling, the index is there", "#009E73"),
            ("memory", "the file in memory", "#D55E00"),
        ):
            there = [(size, r[kind]["peak_mb"]) for size, r in zip(sizes, results.values(), strict=True) if kind in r]
            axes.plot(*zip(*there, strict=True), "o-", color=colour, label=label)
        axes.axhline(500, color="grey", linestyle="--", linewidth=1)
        axes.set(xlabel="file, GB", ylabel="peak memory of the process, MB", ylim=(0, None))
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, metadata={"Date": None})
