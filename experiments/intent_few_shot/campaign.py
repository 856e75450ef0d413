"""Trains the starts and measures every row of every cell that is not measured yet, most telling rows first."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from episodes import QUERIES, Episodes
from frozen import HERE, HUFFPOST, SHAPES, SPLITS, source
from rows import ABOUT_STEPS, COMPARED, NAMES, Group, joint_features
from starts import RUNS, Starts, named_data, trained, trained_on

from metacl.coordination.run_folder import write_text
from metacl.coordination.worker import Worker
from metacl.evaluation.few_shot import CompareMethods, EpisodeScore
from metacl.evaluation.frozen_features import FrozenFeatures, KeptFeatures
from metacl.evaluation.methods import AdaptationMethod
from metacl.tasks import TASK_SOURCES, EpisodeShape, TaskAddress

CELLS = {
    "hwu64": ("5w1s", "5w5s", "15w1s"),
    "banking77": ("5w1s", "5w5s", "15w1s"),
    "huffpost": ("5w1s", "5w5s"),
}
CHOSEN = HERE / "chosen.json"
OTHER = "clinc150"
"""What the start of the cross-data-set rows is meta-learned on; they are measured on `ADAPTED_TO`."""
ADAPTED_TO = "banking77"
FROM_OTHER = ("cross", "zero")
"""The groups that have such a start."""


def scores_of(
    worker: Worker, methods: Sequence[AdaptationMethod], shape: str, part: str, episodes: int, meta: np.ndarray
) -> list[tuple[EpisodeScore, ...]]:
    """The methods' answers to the first episodes of a split's test or validation classes."""
    ways, shots = SHAPES[shape]
    asked = EpisodeShape(ways=min(ways, len(worker.source.classes[part])), shots=shots, queries=QUERIES)
    addresses = [TaskAddress(part, 1, 0, index) for index in range(episodes)]
    work = CompareMethods(tuple(methods), asked)
    return [work(worker, address, meta) for address in addresses]


def rates() -> dict[str, Any]:
    """Those that are chosen, by cell and method."""
    return json.loads(CHOSEN.read_text("utf-8")) if CHOSEN.exists() else {}


def with_rates(starts: Starts, group: Group, dataset: str, shape: str, split: str) -> list[AdaptationMethod]:
    """The group's methods, each with the rate that is best on validation classes of the first split.

    Raises `SystemExit` on another split before it is chosen.
    """
    chosen = rates()
    found = []
    for method in group.methods(starts.adapter):
        candidates = method.candidates()
        if len(candidates) == 1:
            found.append(candidates[0])
            continue
        key = f"{group.cell(dataset, shape)}: {method.rows()[-1].method}"
        if key not in chosen:
            if split != SPLITS[0]:
                raise SystemExit(f"{key}: its rate is chosen on split {SPLITS[0]}, which is to be measured first.")
            scores = scores_of(starts.worker, candidates, shape, "valid", group.validation, starts.meta)
            rows = len(method.rows())
            # A candidate's last row is the one after most steps.
            means = np.mean([[score.accuracy for score in of[rows - 1 :: rows]] for of in scores], 0)
            options = [candidate.chosen_option()[1] for candidate in candidates]
            chosen = rates()  # another process may have added to it
            chosen[key] = {"chosen": options[int(means.argmax())], "valid": dict(zip(options, means, strict=True))}
            write_text(CHOSEN, json.dumps(chosen, indent=1) + "\n")
        found += [one for one in candidates if one.chosen_option()[1] == chosen[key]["chosen"]]
    return found


def shapes_of(group: Group, dataset: str) -> tuple[str, ...]:
    """Those of a data set's cells that a group has rows in; a head that was learned from zero has five classes.

    Names are in no support of HuffPost's, so its frozen rows are all there, and nothing is unnamed beside the others.
    """
    if (group.name in FROM_OTHER and dataset != ADAPTED_TO) or (
        group.name in ("frozen_names", "unnamed") and dataset == "huffpost"
    ):
        return ()
    return tuple(shape for shape in CELLS[dataset] if "zero" not in group.name or SHAPES[shape][0] == 5)


def read_by(group: Group, starts: Starts) -> list[FrozenFeatures]:
    """The features that a group's rows read of every text."""
    worker = starts.worker
    if group.name == "frozen_names":
        return [KeptFeatures.by(worker).pretrained]
    if group.name == "regression":
        return [KeptFeatures.by(worker).learned(worker, starts.meta), joint_features(worker, starts.adapter)]
    return []


def start_of(group: Group, dataset: str, split: str, runs: Path) -> Starts:
    """Trained, and asked about the data set's classes from now on."""
    if group.name in FROM_OTHER:
        starts = trained(group.kind, OTHER, "domains", runs)
    else:
        starts = trained(group.kind, trained_on(group.kind, dataset), split, runs)
    named = group.cell(dataset, "").endswith(NAMES)
    data = named_data(dataset, split, runs) if named else source(dataset, split, runs)
    starts.worker.source = TASK_SOURCES.build(data).open()
    return starts


def measure(group: Group, dataset: str, split: str, runs: Path = RUNS) -> None:
    """The group's rows in all cells of the data set, if they are not there."""
    kept = Episodes(f"{group.name}_{dataset}")  # a file of its own, so that data sets can be measured side by side
    rows = [row for method in group.methods(Path()) for row in method.rows()]
    missing = [
        shape
        for shape in shapes_of(group, dataset)
        if not all(kept.has(group.cell(dataset, shape), row, split, group.episodes) for row in rows)
    ]
    if not missing:
        return
    starts = start_of(group, dataset, split, runs)
    worker = starts.worker
    texts = [text for name in worker.source.classes["test"] for text in worker.source.texts[name]]
    for features in read_by(group, starts):
        features.encode_ahead(texts)
    for shape in missing:
        methods = with_rates(starts, group, dataset, shape, split)
        scores = scores_of(worker, methods, shape, "test", group.episodes, starts.meta)
        kept.add(group.cell(dataset, shape), split, scores)
        means = 100 * np.mean([[score.accuracy for score in of_episode] for of_episode in scores], 0)
        said = ", ".join(f"{row.method} {row.steps}: {mean:.2f}" for row, mean in zip(rows, means, strict=True))
        print(f"{group.cell(dataset, shape)} split {split}: {said}", flush=True)


def main() -> int:
    """Everything that is not measured yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    groups = (*COMPARED, *ABOUT_STEPS)
    names = [group.name for group in groups]
    parser.add_argument("--splits", nargs="*", default=SPLITS, help="which of the five")
    parser.add_argument("--groups", nargs="*", default=names, choices=names, help="which rows")
    parser.add_argument("--datasets", nargs="*", default=list(CELLS), choices=list(CELLS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    datasets = [name for name in options.datasets if name != "huffpost" or HUFFPOST.is_dir()]
    for group in groups:
        for split in options.splits:
            for dataset in datasets:
                if group.name in options.groups:
                    measure(group, dataset, split)
    return 0


if __name__ == "__main__":
    sys.exit(main())
