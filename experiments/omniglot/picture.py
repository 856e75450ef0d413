"""picture.svg: the query loss in training, and the accuracy on unseen characters before and after adapting."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

HERE = Path(__file__).parent
COLOURS = {"meta-learned": "#08519c", "pretrained": "0.6"}


def main() -> None:
    """Draw what results.json holds."""
    found = json.loads((HERE / "results.json").read_text())
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "metacl", "font.size": 9.0}):
        figure = Figure(figsize=(8.5, 3.2), layout="constrained")
        loss, accuracy = figure.subplots(1, 2)
        loss.plot(found["curve"]["tasks"], found["curve"]["query_loss"], color=COLOURS["meta-learned"])
        loss.set(xlabel="training tasks", ylabel="query loss after one step", yscale="log")
        for method, colour in COLOURS.items():
            rows = [row for row in found["rows"] if row["method"] == method]
            steps = [row["steps"] for row in rows]
            shown = [100 * row["accuracy"]["mean"] for row in rows]
            accuracy.plot(steps, shown, "o-", color=colour, label={"pretrained": "random start"}.get(method, method))
        accuracy.axhline(97, color="#D55E00", linewidth=1, linestyle="--", label="97 %")
        accuracy.set(xlabel="inner steps", ylabel="accuracy, %", ylim=(0, 101))
        accuracy.legend()
        figure.savefig(HERE / "picture.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
