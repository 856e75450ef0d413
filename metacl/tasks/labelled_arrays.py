"""Arrays of one's own with a label each, tables and images alike, as N-way K-shot episodes over disjoint classes.

They come from a file that ``numpy.savez(path, inputs=…, labels=…)`` writes. The classes are split as those of labelled
text are; support and query share no row (two equal rows are two).
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from metacl.errors import DataError
from metacl.tasks.episode import TASK_SOURCES, ArrayEpisode, EpisodeShape, Split, TaskAddress, TaskSource
from metacl.tasks.randomness import AddressedRandom
from metacl.tasks.sizes import check_sizes
from metacl.tasks.splits import SPLITS, Fractions, Names, Seed, read_splits, split_at_random


@TASK_SOURCES.register("labelled_arrays")
class LabelledArrays(TaskSource):
    """Rows of numbers or images with labels, for mlp_classifier (B, D) and conv (B, C, H, W).

    path : an .npz file. inputs, labels : names of its arrays, (rows, …) of numbers, (rows,) of whole numbers or text.
    fractions, split_seed : a random split of the classes; or splits : a file {"train": […], "valid": […], "test": […]}.
    """

    gives: ClassVar[Literal["text", "arrays"]] = "arrays"

    path: Path
    inputs: str = "inputs"
    labels: str = "labels"
    fractions: Fractions = (0.4, 0.2, 0.4)
    split_seed: Seed = 0
    splits: Path | None = None

    @property
    def origin(self) -> str:
        """The file."""
        return str(self.path.resolve())

    def open(self) -> LabelledArrayEpisodes:
        """Read the file, nothing pickled in it."""
        inputs, labels = self._read()
        rows: dict[str, list[int]] = {}
        for row, label in enumerate(labels.tolist()):
            rows.setdefault(str(label), []).append(row)
        names = sorted(rows)
        classes = (
            split_at_random(names, self.fractions, self.split_seed)
            if self.splits is None
            else read_splits(self.splits, "class", names)
        )
        return LabelledArrayEpisodes(str(self.path), inputs, rows, classes)

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.path.is_file():
            raise DataError(f"{self.path}: no such file. Paths are relative to {Path.cwd()}.")
        try:
            read = np.load(self.path, allow_pickle=False)
            if not isinstance(read, np.lib.npyio.NpzFile):
                raise DataError(f"{self.path}: one array; expected a file of numpy.savez with inputs and labels.")
            with read as archive:
                for role, name in (("inputs", self.inputs), ("labels", self.labels)):
                    if name not in archive.files:
                        there = ", ".join(map(repr, archive.files))
                        raise DataError(f"{self.path}: no array {name!r}; it has {there}. Name it with data.{role}.")
                inputs, labels = archive[self.inputs], archive[self.labels]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.path}: not a file of numpy.savez with plain arrays ({error}).") from None
        if labels.ndim != 1 or labels.dtype.kind not in "iuU":
            raise DataError(
                f"{self.path}: {self.labels!r} is {labels.dtype} of shape {labels.shape}; expected whole numbers or "
                f"text, one a row."
            )
        if inputs.ndim < 2 or inputs.dtype.kind not in "biuf" or len(inputs) != len(labels):
            raise DataError(
                f"{self.path}: {self.inputs!r} is {inputs.dtype} of shape {inputs.shape}; expected numbers, a row for "
                f"each of the {len(labels)} labels."
            )
        inputs = inputs.astype(np.float32)
        finite = np.isfinite(inputs).reshape(len(inputs), -1).all(1)
        if not finite.all():
            row = int(np.argmin(finite)) + 1
            raise DataError(f"{self.path}: {self.inputs!r}, row {row}, is not finite. Mend it or leave it out.")
        return inputs, labels


class LabelledArrayEpisodes:
    """See `LabelledArrays`. rows : class -> its rows of `inputs`."""

    def __init__(self, name: str, inputs: np.ndarray, rows: dict[str, list[int]], classes: Names) -> None:
        self.name = name
        self.inputs = inputs
        self.rows = rows
        self.classes = {split: sorted(names) for split, names in classes.items()}

    def check(self, split: Split, shape: EpisodeShape) -> None:
        """Raise `DataError` unless every class of `split` can serve in episodes of this shape."""
        names = self.classes[split]
        if shape.ways > len(names):
            raise DataError(
                f"{self.name}: {shape.ways}-way episodes need {shape.ways} classes, but split {split!r} has "
                f"{len(names)}. Lower episodes.ways, or give the split more classes."
            )
        check_sizes(self.name, split, shape, {name: len(self.rows[name]) for name in names}, "class")

    def episode(self, address: TaskAddress, shape: EpisodeShape) -> ArrayEpisode:
        """Inputs (B, …) in float32 and class positions (B,)."""
        random = AddressedRandom(address)
        names = random.sample(self.classes[address.split], shape.ways)
        drawn = [random.sample(self.rows[name], shape.shots + shape.queries) for name in names]

        def part(chosen: slice) -> tuple[np.ndarray, np.ndarray]:
            rows = np.array([of[chosen] for of in drawn])
            return self.inputs[rows.ravel()], np.repeat(np.arange(shape.ways), rows.shape[1])

        return ArrayEpisode(address, shape.ways, part(slice(None, shape.shots)), part(slice(shape.shots, None)))

    def describe(self) -> str:
        """The rows, their shape, the classes of each split."""
        parts = ", ".join(f"{len(self.classes[split])} {split}" for split in SPLITS)
        return f"{self.name}: {len(self.inputs)} rows of shape {self.inputs.shape[1:]}, classes: {parts}"
