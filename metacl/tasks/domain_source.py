"""Texts by domain, for language models: a task is one domain; support and query are different documents of it.

Either whole domains are kept back for validation and test, or, where there is one domain or too few, documents of each.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from metacl.errors import DataError
from metacl.tasks.episode import Episode, EpisodeShape, Split, Survey, Surveyed, TaskAddress, TaskSource
from metacl.tasks.randomness import AddressedRandom
from metacl.tasks.readers import Columns, Row, choose_columns, read_rows
from metacl.tasks.readers.columns import text_of
from metacl.tasks.sizes import check_sizes
from metacl.tasks.splits import SPLITS, Fractions, Seed, read_splits, split_at_random

Documents = dict[str, dict[str, None]]
"""Domain -> its different documents, in the order they were read."""


class DomainSource(TaskSource):
    """What sources of texts by domain share. Subclasses say how a row becomes a document."""

    path: Path
    domain_column: str | None = None
    split_by: Literal["domain", "example"]
    fractions: Fractions = (0.6, 0.2, 0.2)
    split_seed: Seed = 0
    splits: Path | None = None

    @model_validator(mode="after")
    def _splits_are_of_domains(self) -> Self:
        if self.splits is not None and self.split_by != "domain":
            raise ValueError("data.splits: a file of splits names domains. Set data.split_by=domain")
        return self

    @abstractmethod
    def wanted(self) -> dict[str, str | None]:
        """The columns of a document, for `choose_columns`."""

    @abstractmethod
    def document(self, row: Row, columns: Columns) -> str:
        """A row's text. Raises `DataError` with its place if it has none."""

    @property
    def window(self) -> int | None:
        """Characters of a document that an episode shows; None for all."""
        return None

    @property
    def classes(self) -> bool:
        """A domain is no answer."""
        return False

    @property
    def sizes_vary(self) -> bool:
        """Any K; N is 1."""
        return True

    def open(self) -> DomainEpisodes:
        """Read and split the documents."""
        columns = self._columns()
        documents: Documents = {}
        read = 0
        for domain, text, _ in self._rows(columns):
            documents.setdefault(domain, {})[text] = None
            read += 1
        unit = "domains" if self.split_by == "domain" else "examples"
        how = f"split by {self.splits}" if self.splits else f"split {self.fractions} with seed {self.split_seed}"
        guessed = f" ({columns.guessed})" if columns.guessed else ""
        duplicates = read - sum(map(len, documents.values()))
        return DomainEpisodes(f"{self.path}{guessed}, {unit} {how}", self._split(documents), self.window, duplicates)

    def domains(self) -> list[str]:
        """The names of all domains, sorted."""
        return sorted({domain for domain, _, _ in self._rows(self._columns())})

    def texts(self) -> list[str]:
        """All different documents, of whatever domain or split."""
        return list({text: None for _, text, _ in self._rows(self._columns())})

    def _columns(self) -> Columns:
        first = next(iter(read_rows(self.path)))
        return choose_columns(first, {**self.wanted(), "domain_column": self.domain_column}, optional="domain_column")

    def _rows(self, columns: Columns) -> Iterator[tuple[str, str, str]]:
        """Domain, document, place."""
        column = columns.names.get("domain_column")
        for row in read_rows(self.path):
            domain = self.path.name.split(".")[0] if column is None else text_of(row, column)
            yield domain, self.document(row, columns), row.place

    def _split(self, documents: Documents) -> dict[Split, dict[str, list[str]]]:
        found: dict[Split, dict[str, list[str]]] = {split: {} for split in SPLITS}
        if self.split_by == "domain":
            names = sorted(documents)
            chosen = (
                read_splits(self.splits, "domain", names)
                if self.splits is not None
                else split_at_random(names, self.fractions, self.split_seed)
            )
            for split in SPLITS:
                found[split] = {name: list(documents[name]) for name in sorted(chosen[split])}
            return found
        for name, texts in sorted(documents.items()):
            for split, part in split_at_random(list(texts), self.fractions, self.split_seed).items():
                if part:
                    found[split][name] = part
        return found

    def survey(self) -> Survey:
        """All documents with the domain and split they belong to."""
        source, columns = self.open(), self._columns()
        split_of = {
            (name, text): split
            for split, domains in source.documents.items()
            for name, texts in domains.items()
            for text in texts
        }

        def examples() -> Iterator[Surveyed]:
            for domain, text, place in self._rows(columns):
                yield Surveyed(text, domain, split_of.get((domain, text)), place)

        notes = [f"columns {columns.guessed}"] if columns.guessed else []
        used = {name for domains in source.documents.values() for name in domains}
        if left := [name for name in self.domains() if name not in used]:
            notes.append(f"{len(left)} domains stand in no split and are not used: {', '.join(left[:5])}")
        return Survey("domain", source.sizes(), {}, examples, tuple(notes), self.window)


class DomainEpisodes:
    """Episodes of one domain each, a function of the address and the shape alone.

    Parameters
    ----------
    name : str
        What the data is, for messages.
    documents : dict of split to domain to its different documents
    window : int or None
        An episode shows so many characters of a document, from a random place on.
    duplicates : int
        Exact duplicates within a domain, left out.
    """

    def __init__(
        self, name: str, documents: Mapping[Split, Mapping[str, Sequence[str]]], window: int | None, duplicates: int
    ) -> None:
        self.name = name
        self.documents = documents
        self._window = window
        self._duplicates = duplicates
        self._domains = {split: list(of) for split, of in documents.items()}

    def check(self, split: Split, shape: EpisodeShape) -> None:
        """Raise `DataError` unless every domain of `split` can serve in episodes of this shape."""
        if shape.ways != 1:
            raise DataError(f"{self.name}: {shape.ways}-way episodes, but a task is one domain. Set episodes.ways=1.")
        if not self._domains[split]:
            raise DataError(f"{self.name}: split {split!r} has no domain. Change data.fractions or data.split_by.")
        sizes = {name: len(texts) for name, texts in self.documents[split].items()}
        check_sizes(self.name, split, shape, sizes, "domain")

    def episode(self, address: TaskAddress, shape: EpisodeShape) -> Episode:
        """Draw a domain, then documents of it, and a window of each; no document is in support and query."""
        random = AddressedRandom(address)
        domain = random.sample(self._domains[address.split], 1)[0]
        shots = shape.shots if shape.min_shots is None else random.between(shape.min_shots, shape.shots)
        drawn = random.sample(self.documents[address.split][domain], shots + shape.queries)
        texts = tuple(self._shown(text, random) for text in drawn)
        return Episode(
            address=address,
            class_names=(domain,),
            support_texts=texts[:shots],
            support_labels=(0,) * shots,
            query_texts=texts[shots:],
            query_labels=(0,) * shape.queries,
        )

    def _shown(self, text: str, random: AddressedRandom) -> str:
        if self._window is None or len(text) <= self._window:
            return text
        start = random.below(len(text) - self._window + 1)
        after_space = 1 + next((i for i in range(start, start + self._window // 8) if text[i].isspace()), start - 1)
        shown = text[after_space : after_space + self._window].strip()  # words are not cut where a space is near
        return shown or text[: self._window]

    def describe(self) -> str:
        """One line: the name, the documents, the domains of each split."""
        parts = ", ".join(f"{len(self._domains[split])} {split}" for split in SPLITS)
        total = sum(len(texts) for of in self.documents.values() for texts in of.values())
        dropped = f" ({self._duplicates} exact duplicates left out)" if self._duplicates else ""
        return f"{self.name}: {total} documents{dropped}, domains: {parts}"

    def sizes(self) -> dict[Split, dict[str, int]]:
        """Different documents of every domain of every split."""
        return {split: {name: len(texts) for name, texts in of.items()} for split, of in self.documents.items()}
