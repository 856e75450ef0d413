"""Writes the tables of results.json into README.md, between its two marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from run import FEW, few_steps, of_seeds

from metacl.evaluation.statistics import mean_interval

HERE = Path(__file__).parent
BEGIN, END = "<!-- results: made by table.py -->\n", "<!-- end of results -->\n"


def main() -> None:
    """Strategies by start; then the perplexity matrices of two of them."""
    found = json.loads((HERE / "results.json").read_text())
    lines = [
        "| strategy | start | perplexity at the end | forgetting, nats a token | perplexity when learned | "
        + "".join(f"after {steps} | " for steps in FEW)
        + "trained numbers |",
        "|---" * 10 + "|",
        *(line(row) for row in found["rows"]),
        *(
            matrix(found["domains"], row)
            for row in found["rows"]
            if row["start"] == "pretrained" and row["strategy"] in ("fine-tuning", "replay")
        ),
    ]
    readme = HERE / "README.md"
    before, rest = readme.read_text("utf-8").split(BEGIN)
    readme.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + rest.split(END)[1], "utf-8")


def line(row: dict[str, Any]) -> str:
    """A row: means over seeds with 95 % intervals; a perplexity is the exponential of a mean of nats."""
    end, learned = ([-nats for nats in of_seeds(row, f"{name}_accuracy")] for name in ("average", "learning"))
    steps = [f"{np.exp(np.mean(few_steps(row, steps))):.1f}" for steps in FEW]
    forgotten = mean_interval(of_seeds(row, "forgetting_chaudhry"))
    cells = [
        row["strategy"],
        row["start"],
        perplexity(end),
        f"{forgotten.mean:.3f} ({forgotten.low:.3f} … {forgotten.high:.3f})",
        perplexity(learned),
        *steps,
        f"{row['seeds'][0]['trainable_parameters']:,}",
    ]
    return f"| {' | '.join(cells)} |"


def perplexity(nats: list[float]) -> str:
    """Of the mean, with its interval."""
    estimate = mean_interval(nats)
    mean, low, high = np.exp([estimate.mean, estimate.low, estimate.high])
    return f"{mean:.1f} ({low:.1f} … {high:.1f})"


def matrix(domains: list[str], row: dict[str, Any]) -> str:
    """The perplexity of every domain after learning each."""
    r = np.exp(np.mean([[run["baseline"], *run["rows"]] for run in row["seeds"]], 0))
    lines = [
        f"\nPerplexities, {row['strategy']} from the {row['start']} start:\n",
        f"| after learning | {' | '.join(domains)} |",
        "|---" * (len(domains) + 1) + "|",
        *(
            f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} |"
            for name, values in zip(["(nothing)", *domains], r, strict=True)
        ),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
