"""Every row of every cell against the meta-learned ones, from the answers in episodes/: results.json's "compared"."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from campaign import CELLS, OTHER, shapes_of
from episodes import Episodes, in_words
from frozen import HERE, RESULTS, SPLITS, methods, report
from rows import FINE_TUNING, FROM_ZERO, OTHER_DATA, OWN_FROM_ZERO, STARTS, STEPS
from starts import RUNS, cost

from metacl.coordination.run_folder import write_text
from metacl.evaluation import mean_interval
from metacl.evaluation.methods import META_LEARNED
from metacl.evaluation.statistics import paired_difference

LEARNED, FROM_OTHER = f"{META_LEARNED}, {STEPS} steps", f"{OTHER_DATA}, {STEPS} steps"
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


def rows_of(dataset: str, shape: str) -> list[str]:
    """All that a cell shall have."""
    groups = [group for group in (*STARTS, *FINE_TUNING) if shape in shapes_of(group, dataset)]
    of_groups = [method for group in groups for method in group.methods(HERE)]
    return [in_words(row) for method in (*methods(dataset), *of_groups) for row in method.rows()]


def compared(kept: Episodes, best: str) -> dict[str, Any]:
    """By cell and row: the accuracy on the episodes that the row `best` has too, and how much that one is better."""
    found: dict[str, Any] = {}
    for dataset, shapes in CELLS.items():
        for shape in shapes:
            cell = f"{dataset} {shape}"
            there = kept.rows(cell)
            if best not in there:
                continue
            rows = {}
            shared = [row for row in rows_of(dataset, shape) if row in there and kept.shared(cell, row, best)]
            for row in shared:
                values, _ = kept.together(cell, row, best)
                rows[row] = {
                    **interval(values),
                    "episodes": len(values),
                    "splits": kept.shared(cell, row, best),
                    "seconds_to_adapt": kept.seconds(cell, row),
                }
                if row != best:
                    rows[row]["better_by"] = difference(kept, cell, best, row)
            found[cell] = rows
    return found


def inner_steps(kept: Episodes) -> dict[str, Any]:
    """K steps minus 0 steps of the same start, on every cell and on all cells of a start together."""
    found: dict[str, Any] = {}
    for name in (META_LEARNED, OWN_FROM_ZERO, OTHER_DATA, FROM_ZERO):
        for dataset, shapes in CELLS.items():
            for shape in shapes:
                cell = f"{dataset} {shape}"
                after, before = f"{name}, {STEPS} steps", f"{name}, 0 steps"
                if after in kept.rows(cell):
                    found[f"{name}: {cell}"] = difference(kept, cell, after, before)
    return found


def missing(kept: Episodes) -> list[str]:
    """Rows and splits of the full table that are not measured: a line for a cell and splits."""
    said = []
    for dataset, shapes in CELLS.items():
        for shape in shapes:
            cell = f"{dataset} {shape}"
            lacking: dict[tuple[str, ...], list[str]] = {}
            for row in rows_of(dataset, shape):
                there = kept.splits(cell, row) if row in kept.rows(cell) else []
                lacking.setdefault(tuple(split for split in SPLITS if split not in there), []).append(row)
            said += [f"{cell}, splits {', '.join(of)}: {'; '.join(rows)}" for of, rows in lacking.items() if of]
    return said


def training() -> dict[str, Any]:
    """What each start cost: kept beside the runs, which are not part of the repository."""
    known: dict[str, Any] = json.loads(COSTS.read_text("utf-8")) if COSTS.exists() else {}
    starts = [(dataset, split) for dataset in CELLS for split in SPLITS] + [(OTHER, "domains"), (OTHER, "zero")]
    for dataset, split in starts:
        if (RUNS / f"{dataset}_{split}" / "init").exists():
            known[f"{dataset} {split}"] = cost(dataset, split)
    if known:
        write_text(COSTS, json.dumps(known, indent=1) + "\n")
    return known


def summary(costs: dict[str, Any]) -> dict[str, Any]:
    """Medians over the splits of a data set."""
    found = {}
    for dataset in (*CELLS, OTHER):
        of = [one for key, one in costs.items() if key.split()[0] == dataset]
        if of:
            found[dataset] = {
                key: float(np.median([one[key] for one in of if key in one]))
                for key in of[0]
                if isinstance(of[0][key], int | float)
            }
    return found


def verdicts(results: dict[str, Any]) -> list[tuple[str, bool]]:
    """Whether the meta-learned row is above every baseline, whether its steps pay, and whether all is there."""
    lines = []
    for cell, rows in results["compared"].items():
        against = {
            row: of["better_by"] for row, of in rows.items() if "better_by" in of and not row.startswith(META_LEARNED)
        }
        row, worst = min(against.items(), key=lambda one: one[1]["mean"] - one[1]["half"])
        said = f"{worst['mean']:+.2f} ± {worst['half']:.2f} against {row}"
        lines.append((f"{cell}: {LEARNED}, above every baseline: {said}", worst["mean"] > worst["half"]))
    for where, names in (("the same data set", (META_LEARNED, OWN_FROM_ZERO)), ("another", (OTHER_DATA, FROM_ZERO))):
        of = {key: one for key, one in results["inner_steps"].items() if key.split(":")[0] in names}
        paying = [key for key, one in of.items() if one["mean"] > one["half"]]
        lines.append((f"inner steps pay, meta-learned on {where}: {'; '.join(paying) or 'nowhere'}", bool(paying)))
    lines.append((f"everything is measured: {len(results['missing'])} lines are missing", not results["missing"]))
    return lines


def main() -> int:
    """Write it, and say what falls short."""
    kept = Episodes()
    results = json.loads(RESULTS.read_text("utf-8"))
    results["compared"] = compared(kept, LEARNED)
    results["from_other_data"] = compared(kept, FROM_OTHER)
    results["inner_steps"] = inner_steps(kept)
    results["training"] = summary(training())
    results["missing"] = missing(kept)
    write_text(RESULTS, json.dumps(results, indent=1) + "\n")
    return report(verdicts(results))


if __name__ == "__main__":
    sys.exit(main())
