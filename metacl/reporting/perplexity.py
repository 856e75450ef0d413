"""The closing tables of a language model: perplexity, and what it says, from both starts after each number of steps."""

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
    console.print(Text(f"{results['run']}: {language_protocol(results)}\n"))
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
    if "completions" in results:
        _completion_table(results, console)


METRICS = {
    "bleu": ("BLEU", 1),
    "rouge1": ("ROUGE-1", 100),
    "rouge2": ("ROUGE-2", 100),
    "rougeL": ("ROUGE-L", 100),
    "exact_match": ("exact, %", 100),
    "reward": ("reward", 1),
}
"""Heading and what a figure is multiplied with."""


def _completion_table(results: Mapping[str, Any], console: Console) -> None:
    rows = results["completions"]
    named = [name for name in METRICS if name in rows[0]["metrics"]]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for header in ("method", "steps", *(METRICS[name][0] for name in named)):
        table.add_column(header, justify="left" if header == "method" else "right")
    for row in rows:
        figures = (completion_figure(row["metrics"][name], name) for name in named)
        table.add_row(row["method"], str(row["steps"]), *figures)
    console.print(Text(""))
    console.print(table)
    generation = results["protocol"]["generation"]
    how = "" if generation is None else f"At most {generation['new_tokens']} tokens, cut at the first line break. "
    console.print(Text(f"\n{how}Means over tasks, ± half of the 95 % interval; paired gains are in --json."))
    for one in results["examples"][:2]:
        console.print(Text(f"\n{one['prompt']}\n  data: {one['reference']}\n  said: {one['said']}"))


def completion_figure(estimate: Mapping[str, float], name: str, sign: str = "") -> str:
    """``31.2±1.4``: the mean of a metric and half of its interval, in its own unit; sign: "+" for differences."""
    scale = METRICS[name][1]
    digits = 3 if name == "reward" else 1
    half = (estimate["high"] - estimate["low"]) / 2
    return f"{scale * estimate['mean']:{sign}.{digits}f}±{scale * half:.{digits}f}"


def language_protocol(results: Mapping[str, Any]) -> str:
    """One line on what was measured on what."""
    said = results["protocol"]
    return (
        f"{said['shots']} support and {said['queries']} query texts a task, {said['episodes']} tasks of the "
        f"{said['split']} split, seed {said['seed']}; {said['data']}"
    )
