"""picture.svg: the perplexity matrix of every row, one panel each."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

HERE = Path(__file__).parent


def main() -> None:
    """Means over seeds of the nats; the diagonal is what was learned, the last line what is left of it."""
    found = json.loads((HERE / "results.json").read_text())
    rows, columns = found["rows"], 4
    lines = -(-len(rows) // columns)
    matrices = [np.exp(np.mean([run["rows"] for run in row["seeds"]], 0)) for row in rows]
    norm = LogNorm(min(map(np.min, matrices)), max(map(np.max, matrices)))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "metacl", "font.size": 8.0}):
        figure = Figure(figsize=(2.6 * columns + 1, 2.5 * lines), layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False).flat
        for panel, row, r in zip(panels, rows, matrices, strict=False):
            image = panel.imshow(r, cmap="cividis_r", norm=norm)
            for k, i in np.ndindex(r.shape):
                # Luminance of the map: dark where the perplexity is high.
                colour = "white" if norm(r[k, i]) > 0.5 else "black"
                panel.text(i, k, f"{r[k, i]:.0f}", ha="center", va="center", color=colour, fontsize=7)
            panel.set(title=f"{row['strategy']}, {row['start']}", xlabel="asked", ylabel="after learning")
            panel.set_xticks(range(len(r)), [str(i + 1) for i in range(len(r))])
            panel.set_yticks(range(len(r)), [str(k + 1) for k in range(len(r))])
        for panel in list(figure.axes)[len(rows) :]:
            panel.set_axis_off()
        figure.colorbar(image, ax=list(figure.axes), label="perplexity", shrink=0.6)
        figure.suptitle(", ".join(f"{k + 1} {name}" for k, name in enumerate(found["domains"])), fontsize=9)
        figure.savefig(HERE / "picture.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
