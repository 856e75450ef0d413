"""A stream of text domains for language models: documents of one domain after another."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from metacl.continual.experience import Examples, Experience, Stream
from metacl.continual.streams.base import STREAMS, StreamSource, cut, random_of
from metacl.errors import DataError
from metacl.registry import chosen_from, nearest
from metacl.tasks.domain_source import DomainSource
from metacl.tasks.episode import TASK_SOURCES


@STREAMS.register("text_domains")
class TextDomains(StreamSource):
    """A domain of documents at each experience, for ``causal_lm``.

    data : a task source ``domain_text`` or ``prompt_completion``; its splits are not looked at. order : the domains in
    the order they come; null for a random one. test : the share of each domain's documents that is kept back.
    train_documents, test_documents : at most so many of each; null for all. A document is cut to the window of the
    data, from its beginning.
    """

    data: Annotated[DomainSource, chosen_from(TASK_SOURCES)]
    order: tuple[str, ...] | None = None
    test: Annotated[float, Field(gt=0, lt=1)] = 0.25
    train_documents: PositiveInt | None = None
    test_documents: PositiveInt | None = None

    def read(self, seed: int) -> Stream:
        """The seed draws the order, where none is given, and what is kept back."""
        source = self.data.open()
        documents: dict[str, list[str]] = {}
        for domains in source.documents.values():
            for name, texts in domains.items():
                documents.setdefault(name, []).extend(texts)
        known = sorted(documents)
        for name in self.order or ():
            if name not in known:
                raise DataError(f"stream.order: the data has no domain {name!r}. {nearest(name, known)}")
        order = self.order or random_of(seed, 0, 0).sample(known, len(known))
        experiences = []
        for name in order:
            texts = sorted(text[: self.data.window].strip() for text in documents[name])
            parts = cut(texts, self.test, (self.train_documents, self.test_documents), seed, known.index(name))
            train, test = (Examples(part, (0,) * len(part)) for part in parts)
            experiences.append(Experience(name, train, test))
        return Stream(tuple(experiences))
