"""Several sources as one: each episode comes from one of them, drawn with weights.

With temperature T a source of weight w is drawn in proportion to w^(1/T): 1 keeps the weights, larger ones bring them
closer together (Raffel et al. 2020, "Exploring the Limits of Transfer Learning", sec. 3.5.2). Weights that change with
the outer step make a curriculum (Bengio et al. 2009, "Curriculum Learning"): easy sources first, say, hard ones later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Protocol, runtime_checkable

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

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
    """One source of a mixture. weight : null (default) for its number of training examples.

    final_weight : what the weight becomes over the mixture's curriculum_steps; null (default) for no change.
    """

    source: Annotated[TaskSource, chosen_from(TASK_SOURCES)]
    weight: NonNegativeFloat | None = None
    final_weight: NonNegativeFloat | None = None


@TASK_SOURCES.register("mixture")
class Mixture(TaskSource):
    """Episodes of several sources of text, each episode of one of them.

    sources : a list of {source: …, weight: …}. temperature : above 1, small sources are drawn more often.
    curriculum_steps : outer steps over which weights go from `weight` to `final_weight`, in a straight line; episodes
    for validation and test are drawn with the final ones.
    """

    sources: Annotated[tuple[Part, ...], Field(min_length=2)]
    temperature: PositiveFloat = 1.0
    curriculum_steps: PositiveInt | None = None

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
        for number, part in enumerate(self.sources, start=1):
            if part.weight == 0 and not part.final_weight:
                raise ValueError(f"data.sources: source {number} is never drawn. Leave it out, or give it a weight")
        if (self.curriculum_steps is None) != all(part.final_weight is None for part in self.sources):
            raise ValueError("data.curriculum_steps: give it together with a final_weight of one source or more")
        return self

    @property
    def parts(self) -> tuple[TaskSource, ...]:
        """Each of its sources."""
        return tuple(part.source for part in self.sources)

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
        final = [
            weight if part.final_weight is None else part.final_weight
            for part, weight in zip(self.sources, weights, strict=True)
        ]
        if max(weights) == 0:
            raise DataError("data.sources: no source has a weight, or a training example to be weighted by. Give one.")
        if max(final) == 0:
            raise DataError("data.sources: no source has a final weight. Give one a final_weight above 0.")
        return MixedEpisodes(opened, Weights(weights, final, self.curriculum_steps, self.temperature))

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


@dataclass(frozen=True)
class Weights:
    """In proportion to what sources are drawn, at first and in the end, over `steps` outer steps (None: no change)."""

    first: list[float]
    final: list[float]
    steps: int | None
    temperature: float

    def at(self, address: TaskAddress) -> list[float]:
        """For the episode at `address`."""
        done = 1.0 if self.steps is None or address.split != "train" else min(address.step / self.steps, 1.0)
        now = [(1 - done) * first + done * final for first, final in zip(self.first, self.final, strict=True)]
        return [(weight / max(now)) ** (1 / self.temperature) for weight in now]


class MixedEpisodes:
    """Episodes of several opened sources, drawn with `weights`."""

    def __init__(self, sources: list[EpisodeSource], weights: Weights) -> None:
        self._sources = sources
        self._weights = weights

    def check(self, split: Split, shape: EpisodeShape) -> None:
        """Every one of them."""
        for source in self._sources:
            source.check(split, shape)

    def episode(self, address: TaskAddress, shape: EpisodeShape) -> Episode | ArrayEpisode:
        """That of the source that the address draws."""
        chosen = AddressedRandom(address, CHOICE).weighted(self._weights.at(address))
        return self._sources[chosen].episode(address, shape)

    def describe(self) -> str:
        """Each, with its part of the episodes."""
        first, final = (_parts(self._weights.at(TaskAddress(split, 0, 0, 0))) for split in SPLITS[:2])
        changes = [f"{a:.1%}" if a == b else f"{a:.1%} → {b:.1%}" for a, b in zip(first, final, strict=True)]
        said = "; ".join(
            f"{part} {source.describe()}" for part, source in zip(changes, self._sources, strict=True)
        )
        return said if self._weights.steps is None else f"over {self._weights.steps} steps: {said}"

    def sizes(self) -> dict[Split, dict[str, int]]:
        """Those of all that know."""
        known = [(n, source.sizes()) for n, source in enumerate(self._sources, 1) if isinstance(source, Sized)]
        return {split: {f"{n}:{name}": size for n, of in known for name, size in of[split].items()} for split in SPLITS}


def _parts(weights: list[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]
