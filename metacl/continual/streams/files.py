"""A stream of one's own files, in the order they are listed. A run goes on when files are added at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from metacl.continual.experience import Examples, Experience, Stream
from metacl.continual.streams.base import STREAMS, StreamSource
from metacl.registry import Component
from metacl.tasks.readers import read_examples


class Files(Component):
    """One experience. name : as reports call it; null for the name of the file with training texts."""

    train: Path
    test: Path
    name: str | None = None


@STREAMS.register("files")
class FileStream(StreamSource):
    """An experience a pair of files or folders of labelled texts.

    text_column, label_column : fields of a row; null for the obvious ones.
    """

    experiences: Annotated[tuple[Files, ...], Field(min_length=1)]
    text_column: str | None = None
    label_column: str | None = None

    def read(self, seed: int) -> Stream:
        """Nothing is drawn; classes are numbered in the order they are met in."""
        numbers: dict[str, int] = {}

        def read(path: Path) -> Examples:
            rows = read_examples(path, self.text_column, self.label_column)
            labels = tuple(numbers.setdefault(row.label, len(numbers)) for row in rows)
            return Examples([row.text for row in rows], labels)

        experiences = [Experience(f.name or f.train.stem, read(f.train), read(f.test)) for f in self.experiences]
        return Stream(tuple(experiences), tuple(numbers))
