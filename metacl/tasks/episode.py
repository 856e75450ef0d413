"""What a task is: an address that is enough to make it anywhere, and the episode made from it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
from pydantic import PositiveInt

from metacl.registry import Component, Registry

Split = Literal["train", "valid", "test"]


@dataclass(frozen=True, order=True)
class TaskAddress:
    """Where a task is found. Two equal addresses give the same episode on any machine.

    Addresses sort by (split, seed, step, index); results are always combined in that order.
    """

    split: Split
    seed: int
    step: int
    index: int

    def __str__(self) -> str:
        return f"{self.split}/seed={self.seed}/step={self.step}/index={self.index}"


class EpisodeShape(Component):
    """How an episode is drawn: N ways, K shots, queries per class."""

    ways: PositiveInt = 5
    shots: PositiveInt = 1
    queries: PositiveInt = 5


@dataclass(frozen=True)
class Episode:
    """One N-way K-shot task in raw text. Labels are positions in `class_names`."""

    address: TaskAddress
    class_names: tuple[str, ...]
    support_texts: tuple[str, ...]
    support_labels: tuple[int, ...]
    query_texts: tuple[str, ...]
    query_labels: tuple[int, ...]


@dataclass(frozen=True)
class ArrayEpisode:
    """One task in numbers, for learners that take arrays.

    ways : classes, 0 where targets are real values.
    support, query : inputs (B, …) and targets: class positions (B,), or values (B, …).
    """

    address: TaskAddress
    ways: int
    support: tuple[np.ndarray, np.ndarray]
    query: tuple[np.ndarray, np.ndarray]


class EpisodeSource(Protocol):
    """A loaded data set from which any address can be drawn."""

    def episode(self, address: TaskAddress, shape: EpisodeShape) -> Episode | ArrayEpisode:
        """The episode at `address`: a function of its arguments alone."""
        ...

    def check(self, split: Split, shape: EpisodeShape) -> None:
        """Raise `DataError` if episodes of this shape cannot be drawn from `split`."""
        ...

    def describe(self) -> str:
        """One line for people: what was read and how it is split."""
        ...


class TaskSource(Component):
    """A place episodes come from, as a config names it."""

    gives: ClassVar[Literal["text", "arrays"]] = "text"
    """What its episodes are made of."""
    classes: ClassVar[bool] = True
    """Whether targets are classes, so that an answer is right or wrong."""

    @abstractmethod
    def open(self) -> EpisodeSource:
        """Read the data. Raises `DataError` with file and line on what cannot work."""


TASK_SOURCES: Registry[TaskSource] = Registry("task source", "data")
