"""What a stream is: experiences in order, each with examples to learn from and examples to be asked.

An example is known by its address, the experience it is learned in and its place there. Memories hold addresses, so a
state is a few integers, and bytes of a memory are those of the examples it points to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Address = tuple[int, int]
"""(experience, place among its training examples)."""


@dataclass(frozen=True)
class Examples:
    """B examples.

    inputs : texts, or an array (B, …).
    labels : (B,) positions in the stream's `class_names`; all 0 for a language model.
    """

    inputs: Any
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.inputs) == len(self.labels), "every example has a label"

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, places: Sequence[int]) -> Examples:
        """Those at `places`, in that order."""
        chosen = self.inputs[list(places)] if isinstance(self.inputs, np.ndarray) else [self.inputs[i] for i in places]
        return Examples(chosen, tuple(self.labels[place] for place in places))

    def nbytes(self, place: int) -> int:
        """Bytes of one input as it is stored: UTF-8 for a text."""
        found = self.inputs[place]
        return len(found.encode()) if isinstance(found, str) else int(np.asarray(found).nbytes)

    def fingerprint(self) -> str:
        """A hash of all of it."""
        digest = hashlib.sha256(repr(self.labels).encode())
        if isinstance(self.inputs, np.ndarray):
            digest.update(np.ascontiguousarray(self.inputs).tobytes())
        else:
            for text in self.inputs:
                digest.update(text.encode() + b"\0")
        return digest.hexdigest()


def together(parts: Sequence[Examples]) -> Examples:
    """Examples of several, one after another."""
    labels = tuple(label for part in parts for label in part.labels)
    if isinstance(parts[0].inputs, np.ndarray):
        return Examples(np.concatenate([part.inputs for part in parts]), labels)
    return Examples([text for part in parts for text in part.inputs], labels)


@dataclass(frozen=True)
class Experience:
    """One stage of a stream. train, test share no example."""

    name: str
    train: Examples
    test: Examples

    def classes(self) -> list[int]:
        """The labels that occur, sorted."""
        return sorted({*self.train.labels, *self.test.labels})

    def fingerprint(self) -> str:
        """By which a run that goes on knows that the past is the same."""
        return hashlib.sha256((self.train.fingerprint() + self.test.fingerprint()).encode()).hexdigest()


@dataclass(frozen=True)
class Stream:
    """Experiences in the order they come.

    class_names : every class, in the order of first appearance, so that what is appended renumbers nothing; empty for
    language models.
    """

    experiences: tuple[Experience, ...]
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.experiences)

    def train_addresses(self, experience: int) -> list[Address]:
        """Of an experience's training examples, in order."""
        return [(experience, place) for place in range(len(self.experiences[experience].train))]

    def label(self, address: Address) -> int:
        """Of a training example."""
        return self.experiences[address[0]].train.labels[address[1]]

    def nbytes(self, addresses: Sequence[Address]) -> int:
        """Bytes of training inputs, each different one once."""
        return sum(self.experiences[k].train.nbytes(place) for k, place in set(addresses))
