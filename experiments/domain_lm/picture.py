"""picture.svg: the perplexity of every test domain, by inner steps, from both starts."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from metacl.evaluation.statistics import mean_interval

STEPS = ["0", "1", "5", "10", "50"]
HERE = Path(__file__).parent
COLOURS = {"joint, half": "0.8", "joint": "0.5", "meta-learned": "#08519c"}


def main() -> None:
    """Draw what results.json holds."""
    found = json.loads((HERE / "results.json").read_text())["test"]
    domains = list(found["joint"]["0"])
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "metacl", "font.size": 9.0}):
        figure = Figure(figsize=(9.0, 5.2), layout="constrained")
        panels = figure.subplots(2, 3, sharex=True).flat
        for panel, domain in zip(panels, domains, strict=True):
            for start in found:
                colour = COLOURS[start]
                estimates = [mean_interval(found[start][steps][domain]) for steps in STEPS]
                places = range(len(estimates))
                panel.plot(places, [np.exp(e.mean) for e in estimates], "o-", color=colour, label=start)
                panel.fill_between(
                    places,
                    [np.exp(e.low) for e in estimates],
                    [np.exp(e.high) for e in estimates],
                    color=colour,
                    alpha=0.15,
                    linewidth=0,
                )
            panel.set(title=domain, yscale="log")
            panel.set_xticks(range(len(STEPS)), STEPS)
            panel.yaxis.set_major_formatter("{x:.0f}")
            panel.yaxis.set_minor_formatter("{x:.0f}")
        figure.supxlabel("inner steps on 8 windows of 32 tokens, each with the step size tuned for it")
        figure.supylabel("perplexity of other windows")
        figure.axes[0].legend()
        figure.savefig(HERE / "picture.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
