"""Draws picture.svg from results.json: the R matrices of the rows that are there, one panel a row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).parent


def main() -> None:
    """Mean over seeds; the diagonal is what was learned, the last row what is left."""
    rows = json.loads((HERE / "results.json").read_text())["rows"]
    columns = min(4, len(rows))
    figure = Figure(figsize=(3.0 * columns + 1, 2.9 * -(-len(rows) // columns)), layout="constrained")
    for place, row in enumerate(rows):
        axes = figure.add_subplot(-(-len(rows) // columns), columns, place + 1)
        image = axes.imshow(100 * np.mean(row["r"], axis=0), cmap="cividis", vmin=0, vmax=100)
        axes.set_title(f"{row['strategy']}, {row['start']}", fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel("asked", fontsize=8)
        axes.set_ylabel("after learning", fontsize=8)
    figure.colorbar(image, ax=figure.axes, label="accuracy, %")
    figure.savefig(HERE / "picture.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
