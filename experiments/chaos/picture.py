"""picture.svg: how far the run was, and what struck it when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from plan import WEIGHTS


def draw(events: list[dict[str, Any]], path: Path) -> None:
    """Steps taken over time; below, a mark a fault."""
    began = events[0]["time"]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "metacl", "font.size": 10.0}):
        figure = Figure(figsize=(9.0, 5.0), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1))
        steps = [(event["time"] - began, event["step"]) for event in events if "step" in event]
        above.plot(*zip(*steps, strict=True), color="#0072B2")
        above.set_ylabel("outer steps taken")
        kinds = list(WEIGHTS)
        for event in events:
            if " strikes: " in event.get("note", ""):
                kind = event["note"].split(" strikes: ")[1].split()[0]
                below.plot(event["time"] - began, kinds.index(kind), "|", color="#D55E00", markersize=9)
        below.set_yticks(range(len(kinds)), kinds)
        below.set_ylim(len(kinds) - 0.5, -0.5)
        below.set_xlabel("seconds since the start")
        for axes in (above, below):
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, metadata={"Date": None})
