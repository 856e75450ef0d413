"""Several sources as one: each episode comes from one of them, drawn with weights.

With temperature T a source of weight w is drawn in proportion to w^(1/T): 1 keeps the weights, larger ones bring them
closer together (Raffel et al. 2020, "Exploring the Limits of Transfer Learning", sec. 3.5.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Protocol, runtime_checkable

from pydantic import Field, PositiveFloat, model_validator

from metacl.errors import DataError
from metacl.registry import Component, chosen_from
from metacl.tasks.episode import (
    TASK_SOURCES,
    ArrayEpisode,
    Episode,
    EpisodeShape,
    EpisodeSource,
    Split,
    Survey,
    Surveyed,
    TaskAddress,
    TaskSource,
)
from metacl.tasks.randomness import AddressedRandom
from metacl.tasks.splits import SPLITS

CHOICE = 1
"""The random stream that chooses the source; stream 0 of the same address draws its episode."""


@runtime_checkable
class Sized(Protocol):
    """A source that knows how much it has."""

    def sizes(self) -> dict[Split, dict[str, int]]:
        """Different examples of every class or domain of every split."""
        ...


class Part(Component):
    """One source of a mixture. weight : null (default) for its number of training examples."""

    source: Annotated[TaskSource, chosen_from(TASK_SOURCES)]
    weight: PositiveFloat | None = None


@TASK_SOURCES.register("mixture")
class Mixture(TaskSource):
    """Episodes of several sources of text, each episode of one of them.

    sources : a list of {source: …, weight: …}. temperature : above 1, small sources are drawn more often.
    """

    sources: Annotated[tuple[Part, ...], Field(min_length=2)]
    temperature: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _alike(self) -> Mixture:
        parts = [part.source for part in self.sources]
        if any(isinstance(part, Mixture) for part in parts):
            raise ValueError("data.sources: a mixture in a mixture; list its sources in the outer one")
        if any(part.gives != "text" for part in parts):
            raise ValueError("data.sources: a mixture is of sources of text")
        if len({(part.classes, part.completion_marker) for part in parts}) > 1:
            raise ValueError(
                "data.sources: all must have classes or none, and one marker between prompt and completion; their "
                "episodes go to one learner"
            )
        return self

    @property
    def classes(self) -> bool:
        """As its sources."""
        return self.sources[0].source.classes

    @property
    def completion_marker(self) -> str | None:
        """As its sources."""
        return self.sources[0].source.completion_marker

    @property
    def sizes_vary(self) -> bool:
        """If all of its sources do."""
        return all(part.source.sizes_vary for part in self.sources)

    def open(self) -> MixedEpisodes:
        """Read all of them."""
        opened = [part.source.open() for part in self.sources]
        weights = [
            float(sum(source.sizes()["train"].values()) if isinstance(source, Sized) else 1.0)
            if part.weight is None
            else part.weight
            for part, source in zip(self.sources, opened, strict=True)
        ]
        largest = max(weights)
        if largest == 0:
            raise DataError("data.sources: no source has a training example to be weighted by. Give each a weight.")
        return MixedEpisodes(opened, [(weight / largest) ** (1 / self.temperature) for weight in weights])

    def survey(self) -> Survey | None:
        """All examples of all; a group is called by its source's number and its own name."""
        surveys = [part.source.survey() for part in self.sources]
        known = [(number, survey) for number, survey in enumerate(surveys, start=1) if survey is not None]
        if not known:
            return None

        def examples() -> Iterator[Surveyed]:
            for number, survey in known:
                for example in survey.examples():
                    yield replace(example, group=f"{number}:{example.group}")

        return Survey(
            known[0][1].unit,
            {
                split: {f"{n}:{name}": size for n, s in known for name, size in s.splits[split].items()}
                for split in SPLITS
            },
            {f"{n}:{name}": domain for n, s in known for name, domain in s.domain_of.items()},
            examples,
            tuple(f"source {number}: {note}" for number, survey in known for note in survey.notes),
            min((survey.window for _, survey in known if survey.window is not None), default=None),
        )


class MixedEpisodes:
    """Episodes of several opened sources. weights : in proportion to which they are drawn."""

    def __init__(self, sources: list[EpisodeSource], weights: list[float]) -> None:
        self._sources = sources
        self._weights = weights

    def check(self, split: Split, shape: EpisodeShape) -> None:
        """Every one of them."""
        for source in self._sources:
            source.check(split, shape)

    def episode(self, address: TaskAddress, shape: EpisodeShape) -> Episode | ArrayEpisode:
        """That of the source that the address draws."""
        return self._sources[AddressedRandom(address, CHOICE).weighted(self._weights)].episode(address, shape)

    def describe(self) -> str:
        """Each, with its part of the episodes."""
        total = sum(self._weights)
        return "; ".join(
            f"{weight / total:.1%} {source.describe()}"
            for weight, source in zip(self._weights, self._sources, strict=True)
        )

    def sizes(self) -> dict[Split, dict[str, int]]:
        """Those of all that know."""
        known = [(n, source.sizes()) for n, source in enumerate(self._sources, 1) if isinstance(source, Sized)]
        return {split: {f"{n}:{name}": size for n, of in known for name, size in of[split].items()} for split in SPLITS}
