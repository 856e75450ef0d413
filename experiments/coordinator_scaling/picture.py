"""picture.svg: the coordinator's part of a step over the number of groups, alone and with shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from shares import BAR, GROUPS, MILLION, share_of_step

COLOURS = {MILLION: "#009E73", 40 * MILLION: "#0072B2", 160 * MILLION: "#D55E00"}


def draw(results: dict[str, Any], path: Path) -> None:
    """What was measured; a line a gradient size, dashed where one process does it all."""
    calls = results.get("ray calls")
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "metacl", "font.size": 10.0}):
        figure = Figure(figsize=(7.0, 4.2), layout="constrained")
        axes = figure.subplots()
        for parameters, colour in COLOURS.items():
            millions = f"{parameters // MILLION} M parameters"
            alone = [g for g in GROUPS if f"one {parameters} {g}" in results]
            shares = [share_of_step(results[f"one {parameters} {g}"], None, None).own for g in alone]
            axes.plot(alone, [100 * share for share in shares], "o--", color=colour, label=f"{millions}, one process")
            apart = [g for g in GROUPS if f"shards {parameters} {g}" in results]
            shares = [share_of_step(results[f"shards {parameters} {g}"], calls, None).own for g in apart]
            axes.plot(apart, [100 * share for share in shares], "o-", color=colour, label=f"{millions}, shards")
        axes.axhline(100 * BAR, color="#888888", linewidth=1.0)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(GROUPS, [str(count) for count in GROUPS])
        axes.set_xlabel("groups, four tasks of 5.5 s each; as many shards")
        axes.set_ylabel("coordinator's work, % of a step")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, metadata={"Date": None})
