"""Writes the tables of results.json into README.md, between its two marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from run import PLACES, SHOWN, STARTS, STRATEGIES, over_strategies, pairs, sides, versus

from metacl.evaluation.statistics import Estimate, mean_interval

HERE = Path(__file__).parent
BEGIN, END = "<!-- results: made by table.py -->\n", "<!-- end of results -->\n"
COLUMNS = {
    SHOWN[0]: "accuracy at the end, %",
    SHOWN[1]: "when learned, %",
    "after 0 steps": "after 0 steps",
    "after 1 steps": "after 1 step",
    "after 3 steps": "after 3 steps",
    SHOWN[2]: "forgetting, points",
}


def main() -> None:
    """All rows; what the other starts change for each strategy and for the mean of them; on which side that is."""
    found = json.loads((HERE / "results.json").read_text())
    rows = found["rows"]
    parts = [[*heading("strategy", "start"), *(line(row) for row in rows)]]
    for start in STARTS[1:]:
        if differences := {strategy: versus(*pair) for strategy, pair in pairs(rows, start).items()}:
            differences[f"mean of these {len(differences)}"] = over_strategies(rows, start)
            told = [f"| {strategy} | {cells(estimates, '+')} |" for strategy, estimates in differences.items()]
            parts.append([f"{start.capitalize()} − pretrained, in points, paired by seed:"])
            parts.append([*heading("strategy"), *told])
            parts.append(counted(rows, start))
    if found["missing"]:
        parts.append([f"Missing, {len(found['missing'])} rows of {len(STRATEGIES) * len(STARTS)}:"])
        there = {(row["strategy"], row["start"]) for row in rows}
        absent = {start: [s for s in STRATEGIES if (s, start) not in there] for start in STARTS}
        parts.append([f"- from the {start} start: {', '.join(names)}" for start, names in absent.items() if names])
    readme = HERE / "README.md"
    before, rest = readme.read_text("utf-8").split(BEGIN)
    text = "\n\n".join("\n".join(part) for part in parts)
    readme.write_text(before + BEGIN + text + "\n" + END + rest.split(END)[1], "utf-8")


def heading(*first: str) -> list[str]:
    """The two first lines of a table."""
    names = [*first, *COLUMNS.values()]
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]


def line(row: dict[str, Any]) -> str:
    """Means over seeds with 95 % intervals."""
    estimates = {name: mean_interval(values) for name, values in row["values"].items()}
    return f"| {row['strategy']} | {row['start']} | {cells(estimates)} |"


def cells(estimates: dict[str, Estimate], sign: str = "") -> str:
    """The columns; a dash where an experience took fewer steps."""
    return " | ".join(told(estimates[name], sign) if name in estimates else "–" for name in COLUMNS)


def told(estimate: Estimate, sign: str) -> str:
    """In percent."""
    return f"{100 * estimate.mean:{sign}.1f} ({100 * estimate.low:{sign}.1f} … {100 * estimate.high:{sign}.1f})"


def counted(rows: list[dict[str, Any]], start: str) -> list[str]:
    """How many strategies have the two claimed differences on each side of zero."""
    return [
        f"| strategies whose 95 % interval of {start} − pretrained is | better than zero | worse | around zero |",
        "|---" * 4 + "|",
        *(
            f"| {COLUMNS.get(name, name).split(',')[0]} | {' | '.join(str(counts[place]) for place in PLACES)} |"
            for name, counts in sides(rows, start).items()
        ),
    ]


if __name__ == "__main__":
    main()
