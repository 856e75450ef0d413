"""picture.svg: the frozen rows of every cell, with what others measured."""

from __future__ import annotations

import json

from frozen import HERE, KNOWN, RESULTS
from matplotlib.figure import Figure

COLOURS = {
    "label names, zero-shot": "#CC79A7",
    "frozen prototypes": "#0072B2",
    "nearest neighbour": "#009E73",
    "logistic regression": "#D55E00",
}


def main() -> None:
    """Draw it."""
    cells = json.loads(RESULTS.read_text())["frozen"]
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.add_subplot()
    for place, (key, cell) in enumerate(cells.items()):
        for shift, (method, colour) in enumerate(COLOURS.items()):
            x = place + 0.18 * (shift - 1.5)
            if method in cell["rows"]:
                row = cell["rows"][method]
                label = method if place == 0 else None
                axes.errorbar(x, row["accuracy"], yerr=row["half"], fmt="o", color=colour, markersize=4, label=label)
            if (known := KNOWN.get(tuple(key.split()), {}).get(method)) is not None:
                label = "measured by others" if (place, method) == (0, "frozen prototypes") else None
                axes.plot(x, known[0], "k_", markersize=9, label=label)
    axes.set_xticks(range(len(cells)), cells, rotation=40, ha="right")
    axes.set_ylabel("accuracy, %")
    axes.legend(ncols=5, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.12), frameon=False)
    figure.savefig(HERE / "picture.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
