"""Puts results.json into README.md, between its two markers, as tables."""

from __future__ import annotations

import statistics
from typing import Any

from campaign import ORDER, RESULTS, STEPS, read
from methods import METHODS
from picture import TITLES

TASKS = 4
"""Of a meta-step."""
BEGIN, END = "<!-- results: made by table.py -->\n", "<!-- end of results -->"


def main() -> None:
    """Write the tables of the cases that were measured."""
    results = read()
    readme = RESULTS.with_name("README.md")
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    parts = [_case(results, case) for case in STEPS if any(key.startswith(f"{case} ") for key in results["alone"])]
    machine = results["machine"]
    where = f"Measured on {machine['cpu']}, one thread, torch {machine['torch']}, {machine['gpu'] or 'no GPU'}.\n\n"
    readme.write_text(before + BEGIN + where + "\n".join(parts) + END + after)


def _case(results: dict[str, Any], case: str) -> str:
    columns = sorted(STEPS[case])
    main = STEPS[case][0]
    head = [
        TITLES[case], *(f"K={steps}" for steps in columns), f"× plain at K={main}", f"error at K={main}",
        "compiling, earned back after",
    ]  # fmt: skip
    lines = [_row(head), _row(["---"] * len(head))]
    for method in ORDER:
        cells = [results["alone"].get(f"{case} {steps} {method}") for steps in columns]
        if not any(cells):
            continue
        here = results["alone"].get(f"{case} {main} {method}", {})
        error = f"{here['error']:.1e}" if "error" in here else ""
        paired = results["paired"].get(f"{case} {main}")
        ratio = _ratio(paired, method)
        compiling = _compiling(here, results["alone"].get(f"{case} {main} plain", {}), method)
        lines.append(_row([METHODS[method].label, *map(_cell, cells), ratio, error, compiling]))
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if "failed" in row:
        return f"– ({row['failed']})"
    return f"{row['seconds']:.2f} s, {row['extra_mb']:.0f} MB"


def _ratio(paired: dict[str, Any] | None, method: str) -> str:
    if paired is None or method not in paired["seconds"]:
        return ""
    pairs = zip(paired["seconds"][method], paired["seconds"]["plain"], strict=True)
    ratios = [one / plain for one, plain in pairs]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def _compiling(here: dict[str, Any], plain: dict[str, Any], method: str) -> str:
    """Seconds of the first meta-step beyond a usual one, nothing compiled before, and the tasks that win them back."""
    if not method.endswith("_compiled") or "seconds" not in here or "seconds" not in plain:
        return ""
    compiling = here["warm_up_s"] - here["seconds"]
    won = (plain["seconds"] - here["seconds"]) / TASKS
    return f"{compiling:.0f} s, {compiling / won:.0f} tasks" if won > 0 else f"{compiling:.0f} s, never"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
