"""picture.svg: the R matrix of every row that is there, a line a strategy, a column a start."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from run import STARTS, STRATEGIES

HERE = Path(__file__).parent
ACROSS = 2
"""Strategies side by side."""


def main() -> None:
    """Means over seeds; the diagonal is what was learned, the last line what is left of it."""
    rows = {(row["strategy"], row["start"]): row for row in json.loads((HERE / "results.json").read_text())["rows"]}
    strategies = [strategy for strategy in STRATEGIES if any((strategy, start) in rows for start in STARTS)]
    starts = [start for start in STARTS if any((strategy, start) in rows for strategy in strategies)]
    lines = -(-len(strategies) // ACROSS)
    # Above the diagonal no class of the test may be answered yet.
    averages = {which: 100 * np.mean(row["r"], axis=0) for which, row in rows.items()}
    met = {which: np.where(np.tri(len(r)), r, np.nan) for which, r in averages.items()}
    lowest = min(map(np.nanmin, met.values()))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "metacl", "font.size": 8.0}):
        figure = Figure(figsize=(2.0 * ACROSS * len(starts) + 1, 2.1 * lines), layout="constrained")
        panels = figure.subplots(lines, ACROSS * len(starts), squeeze=False)
        for panel in panels.flat:
            panel.set_axis_off()
        for place, strategy in enumerate(strategies):
            for column, start in enumerate(starts):
                if (strategy, start) not in rows:
                    continue
                panel = panels[place // ACROSS, place % ACROSS * len(starts) + column]
                panel.set_axis_on()
                r = met[strategy, start]
                image = panel.imshow(r, cmap="cividis", vmin=lowest, vmax=100)
                panel.set(title=f"{strategy},\n{start}", xlabel="asked", ylabel="after learning")
                panel.set_xticks([0, len(r) - 1], ["1st", f"{len(r)}th"])
                panel.set_yticks([0, len(r) - 1], ["1st", f"{len(r)}th"])
        figure.colorbar(image, ax=list(panels.flat), label="accuracy, %", shrink=0.5)
        figure.savefig(HERE / "picture.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
