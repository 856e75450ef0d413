"""One split of one cell from the start: both trainings, the rows of both starts and the frozen ones."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from campaign import scores_of, with_rates
from compare import LEARNED
from episodes import Episodes, in_words
from frozen import report
from rows import COMPARED, STEPS
from starts import TOGETHER, named_data, trained, trained_on

from metacl.evaluation import mean_interval
from metacl.evaluation.methods import PRETRAINED
from metacl.evaluation.statistics import paired_difference
from metacl.tasks import TASK_SOURCES

DATASET, SHAPE, SPLIT = "hwu64", "5w1s", "01"
APART = 1.5
"""Points by which a trained row may differ from the record: another processor rounds otherwise, and training adds."""


def main() -> int:
    """Print how far each row is from the record, and whether what was trained is better than what it began from."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    frozen, regression, group = COMPARED[:3]
    kept, cell = Episodes(), group.cell(DATASET, SHAPE)
    with tempfile.TemporaryDirectory() as folder:
        starts = trained(TOGETHER, trained_on(TOGETHER, DATASET), SPLIT, Path(folder))
        starts.worker.source = TASK_SOURCES.build(named_data(DATASET, SPLIT, Path(folder))).open()
        asked = [*frozen.methods(starts.adapter), *regression.methods(starts.adapter)]
        asked += with_rates(starts, group, DATASET, SHAPE, SPLIT)
        scores = scores_of(starts.worker, asked, SHAPE, "test", group.episodes, starts.meta)
    found = {in_words(of[0].row): [score.accuracy for score in of] for of in zip(*scores, strict=True)}
    lines = []
    for row, values in found.items():
        if row not in kept.rows(cell) or SPLIT not in kept.splits(cell, row):
            lines.append((f"{cell} split {SPLIT}, {row}: not in the record", False))
            continue
        known = 100 * float(np.mean(kept.of(cell, row, SPLIT)[: len(values)]))
        lines.append(
            (
                f"{cell} split {SPLIT}, {row}: {100 * mean_interval(values).mean:.2f}, in the record {known:.2f}",
                abs(100 * float(np.mean(values)) - known) <= APART,
            )
        )
    for row in (f"{PRETRAINED}, {STEPS} steps", "frozen prototypes"):
        better = paired_difference(found[LEARNED], found[row])
        lines.append(
            (
                f"{LEARNED} minus {row}: {100 * better.mean:+.2f} ± {50 * (better.high - better.low):.2f}",
                better.low > 0,
            )
        )
    minutes = (time.perf_counter() - started) / 60
    lines.append((f"this took {minutes:.1f} minutes (bar 10)", minutes <= 10))
    return report(lines)


if __name__ == "__main__":
    sys.exit(main())
