"""results.json as picture.svg: memory of a rank against the number of ranks, and what it costs in time."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
RANKS = (1, 2, 4)


def main() -> None:
    """Draw."""
    results = json.loads((HERE / "results.json").read_text())
    whole = results["cost whole"][0]
    rows = [results[f"cost R={ranks}"] for ranks in RANKS]
    figure, (memory, seconds) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    lines = {"held_mb": "held", "loading_peak_mb": "peak loading", "computing_peak_mb": "peak computing"}
    for key, label in lines.items():
        memory.plot(RANKS, [max(row[key] for row in of) for of in rows], marker="o", label=label)
    memory.axhline(whole["computing_peak_mb"], color="grey", linestyle="--", label="unsharded, peak computing")
    memory.set(xlabel="ranks R", ylabel="MB of a rank", xticks=RANKS, ylim=(0, None), title="memory")
    memory.legend(frameon=False, fontsize=8)
    seconds.plot(RANKS, [max(row["seconds"] for row in of) / whole["seconds"] for of in rows], marker="o")
    seconds.axhline(1.0, color="grey", linestyle="--")
    seconds.set(xlabel="ranks R", ylabel="time / unsharded", xticks=RANKS, ylim=(0, None), title="time, 2 cores in all")
    figure.savefig(HERE / "picture.svg")


if __name__ == "__main__":
    main()
