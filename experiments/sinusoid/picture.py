"""picture.svg: one unseen wave as each method fits it, before and after 1, 5 and 10 steps on five of its points."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

HERE = Path(__file__).parent
SHADES = {"0": "#9ecae1", "1": "#6baed6", "5": "#2171b5", "10": "#08306b"}


def main() -> None:
    """Draw what results.json holds."""
    methods = json.loads((HERE / "results.json").read_text())["methods"]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "metacl", "font.size": 9.0}):
        columns = 3
        rows = -(-len(methods) // columns)
        figure = Figure(figsize=(9.5, 2.6 * rows), layout="constrained")
        for place, (name, found) in enumerate(methods.items()):
            axes = figure.add_subplot(rows, columns, place + 1)
            fit = found["fit"]
            axes.plot(*fit["wave"], color="0.75", linewidth=4, label="the wave")
            for step, curve in fit["curves"].items():
                axes.plot(fit["x"], curve, color=SHADES[step], linewidth=1.2, label=f"{step} steps")
            axes.plot(*fit["points"], "^", color="#D55E00", label="points adapted to")
            axes.set_title(f"{name}: {found['mse']['1']:.2f} / {found['mse']['5']:.2f} / {found['mse']['10']:.2f}")
            axes.set_ylim(-5.5, 5.5)
            if place == 0:
                axes.legend(fontsize=6, ncols=2)
        figure.savefig(HERE / "picture.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
