"""Where a stream comes from, as a config names it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from metacl.continual.experience import Experience, Stream, together
from metacl.errors import DataError
from metacl.registry import Component, Registry
from metacl.tasks.episode import TaskAddress
from metacl.tasks.randomness import AddressedRandom


class StreamSource(Component):
    """Base of all sources of streams.

    blur : the share of each experience's training examples that come in other experiences instead, dealt out evenly, so
    that no border is sharp (Bang et al. 2021, "Rainbow Memory", sec. 3); tests stay as they are.
    """

    blur: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @abstractmethod
    def read(self, seed: int) -> Stream:
        """The stream; `seed` is for what is drawn. Raises `DataError` on what cannot work."""

    def open(self, seed: int) -> Stream:
        """`read`, with borders as sharp as `blur` says. Raises `DataError` if an experience has nothing to learn."""
        stream = self.read(seed)
        if not stream.experiences:
            raise DataError("stream: it has no experience.")
        for experience in stream.experiences:
            for part, examples in (("train", experience.train), ("test", experience.test)):
                if not len(examples):
                    raise DataError(f"stream: experience {experience.name!r} has no {part} examples.")
        return blurred(stream, self.blur, seed) if self.blur else stream


STREAMS: Registry[StreamSource] = Registry("stream", "stream")


def random_of(seed: int, experience: int, what: int) -> AddressedRandom:
    """Random numbers for making a stream. what : 0 order, 1 test, 2 cap, 3 blur, 4 probe."""
    return AddressedRandom(TaskAddress("test", seed, experience, what))


def cut(
    items: Sequence[str], test: float, caps: tuple[int | None, int | None], seed: int, place: int
) -> list[list[str]]:
    """Train and test of the texts of one class or domain, drawn at random, at most as many as `caps` says."""
    shuffled = random_of(seed, place, 1).sample(items, len(items))
    count = max(1, round(test * len(items)))
    return [shuffled[count:][: caps[0]], shuffled[:count][: caps[1]]]


def blurred(stream: Stream, share: float, seed: int) -> Stream:
    """Deals `share` of each experience's training examples to the others in turn; the number in all stays."""
    total = len(stream)
    parts: list[list[tuple[int, int]]] = [[] for _ in range(total)]
    for k, experience in enumerate(stream.experiences):
        count = round(share * len(experience.train)) if total > 1 else 0
        moving = random_of(seed, k, 3).sample(range(len(experience.train)), count)
        going = set(moving)
        parts[k] += [(k, place) for place in range(len(experience.train)) if place not in going]
        for position, place in enumerate(moving):
            parts[(k + 1 + position % (total - 1)) % total].append((k, place))
    blurred_experiences = []
    for k, experience in enumerate(stream.experiences):
        groups = [
            stream.experiences[source].train.take([place for origin, place in parts[k] if origin == source])
            for source in range(total)
        ]
        blurred_experiences.append(Experience(experience.name, together(groups), experience.test))
    return Stream(tuple(blurred_experiences), stream.class_names)
