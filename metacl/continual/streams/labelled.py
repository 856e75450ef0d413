"""Streams of labelled text: some new classes at each experience, or a domain at each."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveInt

from metacl.continual.experience import Examples, Experience, Stream
from metacl.continual.streams.base import STREAMS, StreamSource, cut, random_of
from metacl.errors import ConfigError, DataError
from metacl.registry import nearest
from metacl.tasks.class_texts import ClassTexts
from metacl.tasks.labelled_text import LabelledText


def _without_its_name(value: Any) -> Any:
    """``name: labelled_text`` may stand there, as in a config's `data`; there is nothing else to choose."""
    if isinstance(value, dict) and value.get("name") == LabelledText.registered_name:
        return {key: option for key, option in value.items() if key != "name"}
    return value


class LabelledStream(StreamSource):
    """What streams of labelled text share.

    data : as of a task source ``labelled_text``; its splits are not looked at. test : the share of each class's texts
    that is kept back. train_per_class, test_per_class : at most so many of each class; null for all.
    """

    data: Annotated[LabelledText, BeforeValidator(_without_its_name)]
    test: Annotated[float, Field(gt=0, lt=1)] = 0.25
    train_per_class: PositiveInt | None = None
    test_per_class: PositiveInt | None = None

    def made(self, texts: ClassTexts, groups: list[tuple[str, list[str]]], seed: int) -> Stream:
        """A stream from the names of its experiences and the classes of each."""
        names = list(dict.fromkeys(name for _, classes in groups for name in classes))
        experiences = []
        for title, classes in groups:
            parts: tuple[list[tuple[str, int]], list[tuple[str, int]]] = ([], [])
            for name in classes:
                place = names.index(name)
                found = cut(texts.texts[name], self.test, (self.train_per_class, self.test_per_class), seed, place)
                for part, chosen in zip(parts, found, strict=True):
                    part += [(text, place) for text in chosen]
            train, test = (Examples([t for t, _ in part], tuple(label for _, label in part)) for part in parts)
            experiences.append(Experience(title, train, test))
        return Stream(tuple(experiences), tuple(names))


@STREAMS.register("classes")
class ClassStream(LabelledStream):
    """Class-incremental text: the classes in a random order, cut into equal experiences.

    experiences : how many. classes : used of all, drawn at random; null for all.
    """

    experiences: PositiveInt = 5
    classes: PositiveInt | None = None

    def read(self, seed: int) -> Stream:
        """The seed draws classes, their order and what is kept back."""
        texts = self.data.read()
        known = sorted(texts.texts)
        count = self.classes or len(known)
        if count > len(known) or count < self.experiences:
            raise ConfigError(
                f"stream: {count} classes in {self.experiences} experiences, and the data has {len(known)} classes. "
                f"Lower stream.experiences or stream.classes."
            )
        order = random_of(seed, 0, 0).sample(known, count)
        edges = [round(k * count / self.experiences) for k in range(self.experiences + 1)]
        groups = [order[edges[k] : edges[k + 1]] for k in range(self.experiences)]
        return self.made(texts, [(f"classes {k + 1}", group) for k, group in enumerate(groups)], seed)


@STREAMS.register("domains")
class DomainStream(LabelledStream):
    """A domain at each experience.

    A label that two domains have is two classes; for domains that share their classes give `files`, one a domain.

    data : with domain_column or domains. order : the domains in the order they come; null for a random one.
    """

    order: tuple[str, ...] | None = None

    def read(self, seed: int) -> Stream:
        """The seed draws the order, where none is given, and what is kept back."""
        texts = self.data.read()
        if not texts.domain_of:
            raise ConfigError("stream.data: it has no domains. Set stream.data.domain_column or stream.data.domains.")
        known = sorted(set(texts.domain_of.values()))
        for name in self.order or ():
            if name not in known:
                raise DataError(f"stream.order: the data has no domain {name!r}. {nearest(name, known)}")
        order = self.order or random_of(seed, 0, 0).sample(known, len(known))
        members = {domain: sorted(n for n, of in texts.domain_of.items() if of == domain) for domain in order}
        return self.made(texts, list(members.items()), seed)
