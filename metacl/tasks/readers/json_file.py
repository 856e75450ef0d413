"""JSON: an array of rows, or an object of such arrays, as several published data sets come.

A row is an object, or an array, whose fields are then called "0", "1", …. Where the rows stand under names (FewRel's
relations, CLINC150's splits), the name is a further field, "key".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metacl.errors import DataError
from metacl.tasks.readers.decode import decode
from metacl.tasks.readers.json_text import parse
from metacl.tasks.readers.rows import Row


def rows(path: Path) -> Iterator[Row]:
    """One an element; a row's `line` is its number."""
    tree = load(path)
    if isinstance(tree, list):
        yield from _of_list(path, tree, 0, "")
    elif isinstance(tree, dict):
        done = 0
        for key, part in tree.items():
            if not isinstance(part, list):
                raise DataError(f"{path}: expected an array of rows under {key!r}, got {type(part).__name__}.")
            for row in _of_list(path, part, done, f" of {key!r}"):
                yield Row(row.line, row.place, {"key": key, **row.fields})
            done += len(part)
    else:
        raise DataError(f"{path}: expected an array of rows, or an object of arrays, got {type(tree).__name__}.")


def load(path: Path) -> Any:
    """A JSON file's content. Raises `DataError` with the line where it stops being JSON."""
    return parse(decode(path), path)


def _of_list(path: Path, items: list[Any], before: int, of: str) -> Iterator[Row]:
    for number, item in enumerate(items, start=1):
        place = f"{path}, row {number}{of}"
        if isinstance(item, list):
            item = {str(position): value for position, value in enumerate(item)}
        if not isinstance(item, dict):
            raise DataError(f"{place}: expected an object or an array of fields, got {type(item).__name__}.")
        yield Row(before + number, place, item)
