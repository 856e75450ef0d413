"""picture.svg: how much the meta-learned start is better than each baseline, and what its inner steps add."""

from __future__ import annotations

import json

from frozen import HERE, RESULTS
from matplotlib.figure import Figure

COLOURS = ("#CC79A7", "#0072B2", "#009E73", "#D55E00", "#56B4E9", "#E69F00", "#000000", "#999999")


def main() -> None:
    """Draw it."""
    results = json.loads(RESULTS.read_text("utf-8"))
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    cells = results["compared"]
    baselines = [row for row in dict.fromkeys(row for cell in cells.values() for row in cell) if "meta-l" not in row]
    for shift, row in enumerate(baselines):
        there = [
            (place + 0.8 * ((shift + 0.5) / len(baselines) - 0.5), cell[row]["better_by"])
            for place, cell in enumerate(cells.values())
            if row in cell
        ]
        left.errorbar(
            [x for x, _ in there],
            [of["mean"] for _, of in there],
            yerr=[of["half"] for _, of in there],
            fmt="os^Dv"[shift // len(COLOURS)],
            color=COLOURS[shift % len(COLOURS)],
            markersize=4,
            label=row,
        )
    left.axhline(0, color="black", linewidth=0.8)
    left.set_xticks(range(len(cells)), cells, rotation=40, ha="right")
    left.set_ylabel("meta-learned (1 step) minus baseline, points")
    left.legend(fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    steps = results["inner_steps"]
    right.errorbar(
        [of["mean"] for of in steps.values()],
        range(len(steps)),
        xerr=[of["half"] for of in steps.values()],
        fmt="o",
        color=COLOURS[1],
    )
    right.axvline(0, color="black", linewidth=0.8)
    right.set_yticks(range(len(steps)), steps, fontsize=7)
    right.set_xscale("symlog", linthresh=2)
    right.set_xlim(-4, 200)
    right.set_xlabel("after the steps minus before, one start: points")
    right.invert_yaxis()
    figure.savefig(HERE / "picture.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
