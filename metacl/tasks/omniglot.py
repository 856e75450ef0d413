"""Omniglot (Lake et al. 2015) as N-way K-shot episodes of 28 × 28 one-bit drawings; 1623 characters, 20 drawings each.

The split is that of the meta-learning literature (Vinyals et al. 2016, sec. 4.1.1; Finn et al. 2017, sec. 5.2): 1200
random characters to train, here 100 of them kept for validation, and 423 to test, whatever their alphabets. Training
characters turned by 90, 180 and 270 degrees count as classes of their own; those of the other splits are not turned.
"""

from __future__ import annotations

import io
import lzma
from functools import lru_cache
from importlib.resources import files
from typing import ClassVar, Literal

import numpy as np
from pydantic import NonNegativeInt

from metacl.errors import DataError
from metacl.tasks.episode import TASK_SOURCES, ArrayEpisode, EpisodeShape, Split, TaskAddress, TaskSource
from metacl.tasks.randomness import AddressedRandom

CHARACTERS, DRAWINGS, SIDE = 1623, 20, 28
SIZES: dict[Split, int] = {"train": 1100, "valid": 100, "test": 423}


@TASK_SOURCES.register("omniglot")
class Omniglot(TaskSource):
    """Handwritten characters of 50 alphabets, bundled. `split_seed` draws the split, `rotations` enlarge training."""

    gives: ClassVar[Literal["text", "arrays"]] = "arrays"

    split_seed: NonNegativeInt = 0
    rotations: bool = True

    @property
    def origin(self) -> str:
        """The data set."""
        return "omniglot"

    def open(self) -> OmniglotEpisodes:
        """Unpack the drawings."""
        return OmniglotEpisodes(self)


class OmniglotEpisodes:
    """See `Omniglot`. A class is a character and a number of quarter turns."""

    def __init__(self, config: Omniglot) -> None:
        address = TaskAddress("train", config.split_seed, 0, 0)
        shuffled = AddressedRandom(address).sample(range(CHARACTERS), CHARACTERS)
        self.drawings = bundled_drawings()
        self.classes: dict[Split, list[tuple[int, int]]] = {}
        for split, size in SIZES.items():
            chosen, shuffled = shuffled[:size], shuffled[size:]
            turns = range(4 if config.rotations and split == "train" else 1)
            self.classes[split] = [(character, turn) for character in chosen for turn in turns]

    def check(self, split: Split, shape: EpisodeShape) -> None:
        """Raise `DataError` if the split has too few classes, or a character too few drawings."""
        there = len(self.classes[split])
        if shape.ways > there:
            raise DataError(f"omniglot: {shape.ways} ways, but split {split!r} has {there} classes. Lower the ways.")
        if shape.shots + shape.queries > DRAWINGS:
            raise DataError(
                f"omniglot: {shape.shots} shots + {shape.queries} queries, but a character has {DRAWINGS} drawings. "
                f"Lower shots or queries."
            )

    def episode(self, address: TaskAddress, shape: EpisodeShape) -> ArrayEpisode:
        """Images (B, 1, 28, 28) of 0 and 1, and class positions (B,)."""
        random = AddressedRandom(address)
        support, query = [], []
        for character, turn in random.sample(self.classes[address.split], shape.ways):
            drawn = random.sample(range(DRAWINGS), shape.shots + shape.queries)
            images = np.rot90(self.drawings[character, drawn], turn, axes=(1, 2))
            support.append(images[: shape.shots])
            query.append(images[shape.shots :])

        def joined(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            inputs = np.concatenate(parts)[:, None].astype(np.float32)
            return inputs, np.repeat(np.arange(shape.ways), len(parts[0]))

        return ArrayEpisode(address, shape.ways, joined(support), joined(query))

    def describe(self) -> str:
        """The classes of each split."""
        parts = ", ".join(f"{len(classes)} {split}" for split, classes in self.classes.items())
        return f"omniglot, {CHARACTERS} characters × {DRAWINGS} drawings, classes: {parts}"


@lru_cache(maxsize=1)
def bundled_drawings() -> np.ndarray:
    """All drawings, (1623, 20, 28, 28) of 0 and 1, in uint8."""
    packed = (files("metacl.tasks.bundled_data") / "omniglot_28x28_1bit.npz.xz").read_bytes()
    with np.load(io.BytesIO(lzma.decompress(packed)), allow_pickle=False) as archive:
        return np.unpackbits(archive["bits"]).reshape(CHARACTERS, DRAWINGS, SIDE, SIDE)
