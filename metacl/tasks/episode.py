"""What a task is: an address that is enough to make it anywhere, and the episode made from it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from pydantic import PositiveInt, model_validator

from metacl.registry import Component, Registry

Split = Literal["train", "valid", "test"]
Unit = Literal["class", "domain"]
"""What an episode draws its examples from, and what the splits keep apart."""


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
    """How an episode is drawn: N ways, K shots, queries per class.

    ways, shots : a number, or {min: 3, max: 8}, which sets ways = 8 and min_ways = 3: each episode draws its own N
    and K from the range, uniformly. imbalanced : each class of an episode draws its own K; queries stay balanced.
    """

    ways: PositiveInt = 5
    shots: PositiveInt = 1
    queries: PositiveInt = 5
    min_ways: PositiveInt | None = None
    min_shots: PositiveInt | None = None
    imbalanced: bool = False

    @model_validator(mode="before")
    @classmethod
    def _read_ranges(cls, options: Any) -> Any:
        if not isinstance(options, dict):
            return options
        for key in ("ways", "shots"):
            found = options.get(key)
            if isinstance(found, dict):
                if set(found) != {"min", "max"} or options.get(f"min_{key}") is not None:
                    raise ValueError(f"{key}: expected a number or {{min: 1, max: 8}}")
                options = {**options, key: found["max"], f"min_{key}": found["min"]}
        return options

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> EpisodeShape:
        for key in ("ways", "shots"):
            low, high = getattr(self, f"min_{key}"), getattr(self, key)
            if low is not None and low > high:
                raise ValueError(f"{key}: min {low} is more than max {high}")
        if self.imbalanced and self.min_shots is None:
            raise ValueError("imbalanced: classes draw their shots from a range. Set shots: {min: 1, max: 5}")
        return self

    @property
    def varies(self) -> bool:
        """Whether episodes differ in size."""
        return self.min_ways is not None or self.min_shots is not None

    def __str__(self) -> str:
        """In words, for people."""
        ways = f"{self.ways}" if self.min_ways is None else f"{self.min_ways} to {self.ways}"
        shots = f"{self.shots}" if self.min_shots is None else f"{self.min_shots} to {self.shots}"
        each = " (each class its own)" if self.imbalanced else ""
        return f"{ways}-way {shots}-shot{each}, {self.queries} queries a class"


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


@dataclass(frozen=True)
class Surveyed:
    """One example as it was read. group : the class or domain that it is drawn with. split : None for in no split."""

    text: str
    group: str
    split: Split | None
    place: str


@dataclass(frozen=True)
class Survey:
    """A data set before any episode.

    unit : what a group is. splits : the distinct examples that each group has in a split. domain_of : the domain of
    each class that has one. examples : reads them all again, duplicates included. notes : what else a person should
    know of how it was read. window : characters that an episode shows of a text; None for all.
    """

    unit: Unit
    splits: Mapping[Split, Mapping[str, int]]
    domain_of: Mapping[str, str]
    examples: Callable[[], Iterator[Surveyed]]
    notes: tuple[str, ...] = ()
    window: int | None = None


class TaskSource(Component):
    """A place episodes come from, as a config names it."""

    gives: ClassVar[Literal["text", "arrays"]] = "text"
    """What its episodes are made of."""

    @property
    def sizes_vary(self) -> bool:
        """Whether it can draw episodes of several sizes (`EpisodeShape.varies`)."""
        return False

    @property
    def parts(self) -> tuple[TaskSource, ...]:
        """The sources that its episodes come from. Default: itself."""
        return (self,)

    @property
    def origin(self) -> str | None:
        """What its examples are read from, however they are split; None (default) where they are made."""
        return None

    @property
    def classes(self) -> bool:
        """Whether targets are classes, so that an answer is right or wrong."""
        return True

    @property
    def shows_names(self) -> bool:
        """Whether the names of the classes are examples in a support."""
        return False

    def names_shown(self, names: Sequence[str]) -> list[str]:
        """Those of classes that are. Default: all, or none."""
        return list(names) if self.shows_names else []

    @property
    def completion_marker(self) -> str | None:
        """What stands between a prompt and its completion in every text; None where there are no prompts."""
        return None

    @abstractmethod
    def open(self) -> EpisodeSource:
        """Read the data. Raises `DataError` with file and line on what cannot work."""

    def survey(self) -> Survey | None:
        """All that was read, for `metacl data check`; None where there is nothing to read."""
        return None


TASK_SOURCES: Registry[TaskSource] = Registry("task source", "data")
