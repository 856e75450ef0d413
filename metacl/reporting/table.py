"""The closing table: every method on the same episodes, and what that means in words."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metacl.reporting.verdict import comparisons, verdict
from metacl.reporting.wording import megabytes, milliseconds, percent, points, protocol

ABSENT = "–"


def headers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of the table."""
    spread = ["SD of splits"] if _has_spread(rows) else []
    compared = [f"vs {name}" for name in comparisons(rows)]
    return ["method", "inner steps", "accuracy, %", *spread, *compared, "ms to adapt"]


def cells(row: Mapping[str, Any], compared: Sequence[str]) -> list[str]:
    """A row of results.json as text, in the order of `headers`; `ABSENT` where a figure makes no sense."""
    return [
        row["method"],
        ABSENT if row["steps"] is None else str(row["steps"]),
        percent(row["accuracy"]),
        *([f"{100 * row['spread']:.2f}"] if _has_spread([row]) else []),
        *(points(row["versus"][name]) if name in row["versus"] else ABSENT for name in compared),
        milliseconds(row["seconds"]),
    ]


def to_adapt(row: Mapping[str, Any]) -> list[str]:
    """Milliseconds, tokens and megabytes that a row of results.json took an episode; `ABSENT` where not known."""
    tokens, memory = row.get("tokens"), row.get("memory_bytes")
    return [
        milliseconds(row["seconds"]),
        ABSENT if tokens is None else f"{tokens:,.0f}",
        ABSENT if memory is None else megabytes(memory),
    ]


def _has_spread(rows: Sequence[Mapping[str, Any]]) -> bool:
    return all(row.get("spread") is not None for row in rows)


def closing_table(results: Mapping[str, Any], console: Console) -> None:
    """Print the table of results.json and its verdict.

    Parameters
    ----------
    results : dict
        The content of results.json.
    console : rich.console.Console
        Where to print.
    """
    # Spare with space and broken by hand: the table fits the 80 columns of a log, where rich would cut off digits.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for header in headers(results["rows"]):
        broken = "\n".join(textwrap.wrap(header, 10, break_long_words=False))
        table.add_column(broken, justify="left" if header == "method" else "right", overflow="fold")
    for row in results["rows"]:
        table.add_row(*(Text(cell) for cell in cells(row, comparisons(results["rows"]))))
    # Text, not str: a class or run name in brackets is no markup.
    console.print(Text(f"{results['run']}: {protocol(results)}\n"))
    console.print(table)
    console.print(Text("\n± is half of the 95 % interval; differences (vs) are in points, paired by episode.\n"))
    for sentence in verdict(results):
        console.print(Text(sentence))
