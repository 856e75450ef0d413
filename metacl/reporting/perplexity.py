"""The closing table of a language model: perplexity from both starts after each number of steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def perplexity_table(results: Mapping[str, Any], console: Console) -> None:
    """Print what `metacl.api.evaluate_perplexity` found.

    Parameters
    ----------
    results : dict
        Its answer.
    console : rich.console.Console
        Where to print.
    """
    said = results["protocol"]
    console.print(
        Text(
            f"{results['run']}: {said['shots']} support and {said['queries']} query texts a task, {said['episodes']} "
            f"tasks of the {said['split']} split, seed {said['seed']}; {said['data']}\n"
        )
    )
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for header in ("method", "steps", "perplexity", "95 % interval", "gain, nats"):
        table.add_column(header, justify="left" if header == "method" else "right")
    for row in results["rows"]:
        logs, gain = row["log_perplexity"], row["gain"]
        mean, low, high = (math.exp(logs[key]) for key in ("mean", "low", "high"))
        gained = "–" if gain is None else f"{gain['mean']:+.3f} ({gain['low']:+.3f} … {gain['high']:+.3f})"
        table.add_row(row["method"], str(row["steps"]), f"{mean:.2f}", f"{low:.2f} … {high:.2f}", gained)
    console.print(table)
    console.print(
        Text(
            "\nPerplexity is exp of the mean loss a token, averaged over tasks in nats. Gains are per token, paired by "
            "task: pretrained rows against no step, meta-learned rows against pretrained after as many."
        )
    )
