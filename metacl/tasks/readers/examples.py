"""Rows as examples: a text with its label, and its domain where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from metacl.tasks.readers.columns import Columns, choose_columns, text_of
from metacl.tasks.readers.rows import Row, read_rows


@dataclass(frozen=True)
class Example:
    """One text with its label, the line it came from (1-based), its domain, and its place in words."""

    text: str
    label: str
    line: int
    domain: str | None = None
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class TextTable:
    """A file or folder of labelled texts whose columns are settled; reading it again starts over."""

    path: Path
    columns: Columns

    def examples(self) -> Iterator[Example]:
        """All of them, in the file's order. Raises `DataError` as `read_rows` and `text_of` do."""
        return (example_of(row, self.columns) for row in read_rows(self.path))


def open_table(
    path: Path, text_column: str | None, label_column: str | None, domain_column: str | None = None
) -> TextTable:
    """Settle the columns by the first row. None: the obvious one; no domain unless it is named. Raises `DataError`."""
    first = next(iter(read_rows(path)))
    columns = choose_columns(first, {"text_column": text_column, "label_column": label_column})
    if domain_column is not None:
        columns = Columns({**columns.names, "domain_column": domain_column}, columns.guessed)
    return TextTable(path, columns)


def example_of(row: Row, columns: Columns) -> Example:
    """A row as an example."""
    domain = columns.names.get("domain_column")
    return Example(
        text_of(row, columns["text_column"], tokens=True),
        text_of(row, columns["label_column"]),
        row.line,
        None if domain is None else text_of(row, domain),
        row.place,
    )


def read_examples(path: Path, text_column: str | None = None, label_column: str | None = None) -> list[Example]:
    """Read all examples of a file or folder into memory.

    Parameters
    ----------
    path : Path
        See `read_rows`.
    text_column, label_column : str or None
        Names of the two fields every row must have; None for the obvious ones.

    Raises
    ------
    DataError
        See `read_rows`; a missing or empty field.
    """
    return list(open_table(path, text_column, label_column).examples())
