"""Writes the tables of results.json into README.md, between their marks."""

from __future__ import annotations

import json
from typing import Any

from compare import LEARNED, REGRESSION, nearest_baseline
from frozen import HERE, KNOWN, RESULTS, verdicts
from rows import JOINT

PUBLISHED = {
    # data/INDEX.md: read in the papers, but ProtAugment's, which are quoted from memory. 5w1s, 5w5s.
    "ProtAugment (BERT-base, tuned to each data set first)": {"banking77": (89.56, 94.71), "hwu64": (84.34, 92.55)},
    "MAML (backbone not noted)": {"huffpost": (35.27, 44.22)},
    "prototypical networks (backbone not noted)": {"huffpost": (28.62, 45.56)},
    "LEA (BERT-base)": {"huffpost": (48.43, 71.6)},
}


def frozen(cells: dict[str, Any]) -> list[str]:
    """A line a cell: each method's accuracy and interval, and what others measured."""
    methods = list(dict.fromkeys(method for cell in cells.values() for method in cell["rows"]))
    lines = [f"| | {' | '.join(methods)} | seconds | not as others measured |", "|---" * (len(methods) + 3) + "|"]
    for key, cell in cells.items():
        dataset, shape = key.split()
        found = []
        for method in methods:
            row = cell["rows"].get(method)
            known = KNOWN.get((dataset, shape), {}).get(method)
            beside = "" if known is None else f" [{known[0]}{'' if known[1] is None else f' ± {known[1]}'}]"
            found.append("–" if row is None else f"{row['accuracy']:.2f} ± {row['half']:.2f}{beside}")
        short = [
            line.split(",")[1].split(":")[0].strip() for line, ok in verdicts(dataset, shape, cell["rows"]) if not ok
        ]
        lines.append(f"| {key} | {' | '.join(found)} | {cell['seconds_after_encoding']:.0f} | {', '.join(short)} |")
    return lines


def compared(cells: dict[str, Any]) -> list[str]:
    """A line a row: its accuracy, and how much the meta-learned row is better on the same episodes."""
    rows = list(dict.fromkeys(row for cell in cells.values() for row in cell))
    lines = [f"| | {' | '.join(cells)} |", "|---" * (len(cells) + 1) + "|"]
    for row in rows:
        found = [_entry(cell[row]) if row in cell else "–" for cell in cells.values()]
        lines.append(f"| {f'**{row}**' if row == LEARNED else row} | {' | '.join(found)} |")
    for name, of in PUBLISHED.items():
        found = []
        for cell in cells:
            dataset, shape = cell.split()[:2]
            known = dict(zip(("5w1s", "5w5s"), of.get(dataset, ()), strict=False)).get(shape)
            found.append("–" if known is None else f"{known}")
        if set(found) != {"–"}:
            lines.append(f"| *published:* {name} | {' | '.join(found)} |")
    return lines


def _entry(row: dict[str, Any]) -> str:
    better = row.get("better_by")
    few = f" (n={row['episodes']})"
    if better is None:
        return f"**{row['mean']:.1f} ± {row['half']:.1f}**{few}"
    sure = "**" if abs(better["mean"]) > better["half"] else ""
    return f"{row['mean']:.1f}, {sure}{better['mean']:+.1f} ± {better['half']:.1f}{sure}{few}"


def regression(cells: dict[str, Any]) -> list[str]:
    """A line a cell: logistic regression on meta-learned features against the same on others, and the best baseline."""
    others = ("logistic regression", f"{JOINT}, logistic regression")
    lines = [f"| | {REGRESSION} | {' | '.join(f'minus {row}' for row in others)} | minus the nearest baseline |"]
    lines.append("|---" * 5 + "|")
    for cell, rows in cells.items():
        found = [_difference(rows[row]["regression_better_by"]) if row in rows else "–" for row in others]
        nearest, of = nearest_baseline(rows, "regression_better_by")
        own = f"{rows[REGRESSION]['mean']:.1f} ± {rows[REGRESSION]['half']:.1f}"
        lines.append(f"| {cell} | {own} | {' | '.join(found)} | {_difference(of)} ({nearest}) |")
    return lines


def _difference(of: dict[str, float]) -> str:
    sure = "**" if abs(of["mean"]) > of["half"] else ""
    return f"{sure}{of['mean']:+.2f} ± {of['half']:.2f}{sure}"


def inner_steps(found: dict[str, Any]) -> list[str]:
    """A line a start and cell."""
    lines = ["| start, cell | steps | after them | minus 0 steps | p | episodes |", "|---|---|---|---|---|---|"]
    for key, of in found.items():
        said = f"{of['steps']} | {of['after']:.1f} | {_difference(of)} | {of['p_value']:.1g} | {of['episodes']}"
        lines.append(f"| {key} | {said} |")
    return lines


def training(found: dict[str, Any]) -> list[str]:
    """A line a kind of start: the median over its splits."""
    lines = [
        "| | starts | tasks | GFLOP a task | seconds | joint: batches of 64 | GFLOP a batch | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key, of in found.items():
        joint = ("–", "–", "–", "–")
        if "joint_batches" in of:
            joint = (
                f"{of['flops_of_a_task'] / 1e9:.0f}",
                f"{of['joint_batches']:.0f}",
                f"{of['flops_of_a_batch'] / 1e9:.0f}",
                f"{of['joint_seconds']:.0f}",
            )
        lines.append(
            f"| {key} | {of['starts']} | {of['tasks']:.0f} | {joint[0]} | {of['seconds']:.0f} "
            f"| {' | '.join(joint[1:])} |"
        )
    return lines


def main() -> None:
    """Write them."""
    results = json.loads(RESULTS.read_text("utf-8"))
    readme = HERE / "README.md"
    text = readme.read_text("utf-8")
    for name, lines in (
        ("frozen", frozen(results["frozen"])),
        ("compared", compared(results["compared"])),
        ("regression", regression(results["compared"])),
        ("inner_steps", inner_steps(results["inner_steps"])),
        ("training", training(results["training"])),
        ("missing", [f"- {line}" for line in results["missing"]] or ["Nothing."]),
    ):
        begin, end = f"<!-- {name}: made by table.py -->\n", f"<!-- end of {name} -->\n"
        before, rest = text.split(begin)
        text = before + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1]
    readme.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
