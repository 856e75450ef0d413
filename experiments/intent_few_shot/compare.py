"""Every row of every cell against the meta-learned one, from the answers in episodes/: results.json's "compared"."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from campaign import CELLS, OTHER, shapes_of
from episodes import Episodes, in_words
from frozen import HERE, RESULTS, SPLITS, methods, report
from rows import ABOUT_STEPS, COMPARED, NAMES, OF_ONE, STEPS, STEPS_OF_ONE, Group
from starts import FROM_ZERO, ONE, TOGETHER, cost

from metacl.coordination.run_folder import write_text
from metacl.evaluation import mean_interval
from metacl.evaluation.methods import META_LEARNED
from metacl.evaluation.statistics import paired_difference

LEARNED = f"{META_LEARNED}, {STEPS} steps"
REGRESSION = f"{META_LEARNED}, logistic regression"
WITHOUT = "; no names"
"""Ends a row whose supports have no names, beside those that have."""
COSTS = HERE / "training.json"


def interval(values: list[float]) -> dict[str, float]:
    """Mean and half of its interval, in points."""
    found = mean_interval(values)
    return {"mean": 100 * found.mean, "half": 50 * (found.high - found.low)}


def difference(kept: Episodes, cell: str, row: str, other: str) -> dict[str, float]:
    """Row minus other on the episodes that both have, in points."""
    a, b = kept.together(cell, row, other)
    found = paired_difference(a, b)
    return {
        "mean": 100 * found.mean,
        "half": 50 * (found.high - found.low),
        "p_value": found.p_value,
        "episodes": len(a),
    }


def cells() -> dict[str, tuple[str, str]]:
    """Those of the table: with names where a data set has them; and the data set and shape."""
    starts = next(group for group in COMPARED if group.name == "starts")
    return {starts.cell(dataset, shape): (dataset, shape) for dataset, shapes in CELLS.items() for shape in shapes}


def beside(kept: Episodes) -> None:
    """In a cell with names, also the rows without: the same episodes but for the names."""
    for cell, (dataset, shape) in cells().items():
        if cell.endswith(NAMES):
            kept.put_beside(cell, f"{dataset} {shape}", WITHOUT, kept.rows(f"{dataset} {shape}"))


def rows_of(cell: str, dataset: str, shape: str) -> dict[str, Group | None]:
    """All that a cell of the table shall have, in its order, with the group that measures it (None: frozen.py)."""
    unnamed = WITHOUT if cell.endswith(NAMES) else ""
    found: dict[str, Group | None] = {in_words(row) + unnamed: None for one in methods(dataset) for row in one.rows()}
    for group in COMPARED:
        if shape in shapes_of(group, dataset):
            ending = unnamed if group.name == "unnamed" else ""
            found |= {in_words(row) + ending: group for one in group.methods(HERE) for row in one.rows()}
    return found


def compared(kept: Episodes) -> dict[str, Any]:
    """By cell and row: the accuracy on the episodes that the meta-learned row has too, and how much that is better."""
    found: dict[str, Any] = {}
    for cell, (dataset, shape) in cells().items():
        there = kept.rows(cell)
        if LEARNED not in there:
            continue
        rows = {}
        for row in rows_of(cell, dataset, shape):
            if row not in there or not kept.shared(cell, row, LEARNED):
                continue
            values, _ = kept.together(cell, row, LEARNED)
            rows[row] = {
                **interval(values),
                "episodes": len(values),
                "splits": kept.shared(cell, row, LEARNED),
                "seconds_to_adapt": kept.seconds(cell, row),
            }
            if row != LEARNED:
                rows[row]["better_by"] = difference(kept, cell, LEARNED, row)
            if row != REGRESSION:
                rows[row]["regression_better_by"] = difference(kept, cell, REGRESSION, row)
        found[cell] = rows
    return found


def inner_steps(kept: Episodes) -> dict[str, Any]:
    """K steps minus 0 steps of the same start, on every cell."""
    found: dict[str, Any] = {}
    asked = [(META_LEARNED, STEPS, cell) for cell in cells()]
    asked += [
        (name, STEPS_OF_ONE, f"{dataset} {shape}")
        for name in OF_ONE.values()
        for dataset, shapes in CELLS.items()
        for shape in shapes
    ]
    for name, steps, cell in asked:
        after, before = f"{name}, {steps} steps", f"{name}, 0 steps"
        if after in kept.rows(cell):
            values, _ = kept.together(cell, after, before)
            found[f"{name}: {cell}"] = {
                **difference(kept, cell, after, before),
                "steps": steps,
                "after": interval(values)["mean"],
            }
    return found


def missing(kept: Episodes) -> list[str]:
    """Rows and splits of the full tables that are not measured: a line for a cell and splits."""
    wanted = {cell: list(rows_of(cell, *of)) for cell, of in cells().items()}
    for group in ABOUT_STEPS:
        for dataset in CELLS:
            for shape in shapes_of(group, dataset):
                rows = [in_words(row) for method in group.methods(HERE) for row in method.rows()]
                wanted.setdefault(group.cell(dataset, shape), []).extend(rows)
    said = []
    for cell, rows in wanted.items():
        lacking: dict[tuple[str, ...], list[str]] = {}
        for row in dict.fromkeys(rows):
            there = kept.splits(cell, row) if row in kept.rows(cell) else []
            lacking.setdefault(tuple(split for split in SPLITS if split not in there), []).append(row)
        said += [f"{cell}, splits {', '.join(of)}: {' / '.join(rows)}" for of, rows in lacking.items() if of]
    return said


def training() -> dict[str, Any]:
    """What each start cost: kept beside the runs, which are not part of the repository."""
    known: dict[str, Any] = json.loads(COSTS.read_text("utf-8")) if COSTS.exists() else {}
    starts = [(TOGETHER, name, split) for name in ("intents", "huffpost") for split in SPLITS]
    starts += [(kind, dataset, split) for kind in (ONE, FROM_ZERO) for dataset in CELLS for split in SPLITS]
    starts += [(kind, OTHER, "domains") for kind in (ONE, FROM_ZERO)]
    for start in starts:
        found = cost(*start)
        if found is not None:
            known[" ".join(start)] = found
    write_text(COSTS, json.dumps(known, indent=1) + "\n")
    return known


def summary(costs: dict[str, Any]) -> dict[str, Any]:
    """Medians over the splits of a kind of start."""
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key.rsplit(maxsplit=1)[0] for key in costs):
        of = [one for name, one in costs.items() if name.rsplit(maxsplit=1)[0] == key]
        found[key] = {
            name: float(np.median([one[name] for one in of if name in one]))
            for name in of[0]
            if isinstance(of[0][name], int | float)
        } | {"starts": len(of)}
    return found


def nearest_baseline(rows: dict[str, Any], key: str) -> tuple[str, dict[str, float]]:
    """That which ours is least surely above, by the difference called `key`."""
    against = {row: of[key] for row, of in rows.items() if key in of and not row.startswith(META_LEARNED)}
    return min(against.items(), key=lambda one: one[1]["mean"] - one[1]["half"])


def verdicts(results: dict[str, Any]) -> list[tuple[str, bool]]:
    """Whether the meta-learned row is above every baseline, whether steps pay, and whether all is there."""
    lines = []
    for cell, rows in results["compared"].items():
        for ours, key in ((LEARNED, "better_by"), (REGRESSION, "regression_better_by")):
            row, worst = nearest_baseline(rows, key)
            said = f"{worst['mean']:+.2f} ± {worst['half']:.2f} against {row}"
            lines.append((f"{cell}: {ours}, above every baseline: {said}", worst["mean"] > worst["half"]))
    for where, other in (("the same data set", False), ("another", True)):
        of = {key: one for key, one in results["inner_steps"].items() if ("CLINC150" in key) is other}
        paying = [key for key, one in of.items() if one["mean"] > one["half"]]
        lines.append((f"inner steps pay, meta-learned on {where}: {'; '.join(paying) or 'nowhere'}", bool(paying)))
    lines.append((f"everything is measured: {len(results['missing'])} lines are missing", not results["missing"]))
    return lines


def main() -> int:
    """Write it, and say what falls short."""
    kept = Episodes()
    beside(kept)
    results = json.loads(RESULTS.read_text("utf-8"))
    results["compared"] = compared(kept)
    results["inner_steps"] = inner_steps(kept)
    results["training"] = summary(training())
    results["missing"] = missing(kept)
    write_text(RESULTS, json.dumps(results, indent=1) + "\n")
    return report(verdicts(results))


if __name__ == "__main__":
    sys.exit(main())
