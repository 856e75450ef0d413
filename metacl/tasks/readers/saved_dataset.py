"""A folder that Hugging Face `datasets` wrote with ``save_to_disk``: Arrow streams, memory-mapped, and JSON about them.

It is read by pyarrow alone. Integers of a ClassLabel become the names that dataset_info.json gives them. A dict of
splits is read as one table in which the split's name is a field, "split".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow

from metacl.errors import DataError
from metacl.tasks.readers.json_file import load
from metacl.tasks.readers.rows import Row

STATE, INFO, DICT = "state.json", "dataset_info.json", "dataset_dict.json"
BATCH = 4096
"""Rows that are in memory together."""


def rows(folder: Path) -> Iterator[Row]:
    """A row's `line` is its number in its table."""
    if not (folder / DICT).is_file():
        yield from _of_table(folder, {})
        return
    for split in _get(folder / DICT, "splits", list):
        yield from _of_table(folder / str(split), {"split": str(split)})


def _of_table(folder: Path, more: dict[str, str]) -> Iterator[Row]:
    if any((folder / name).exists() for name in ("indices.arrow",)) or _get(folder / STATE, "_indices_files", list, []):
        raise DataError(f"{folder}: holds a selection of rows by index. Save it after dataset.flatten_indices().")
    names = _class_names(folder)
    number = 0
    for part in _get(folder / STATE, "_data_files", list):
        path = folder / str(part.get("filename") if isinstance(part, dict) else part)
        try:
            with pyarrow.memory_map(str(path)) as source, pyarrow.ipc.open_stream(source) as stream:
                for record in stream:
                    for first in range(0, record.num_rows, BATCH):
                        for fields in record.slice(first, BATCH).to_pylist():
                            number += 1
                            place = f"{folder}, row {number}"
                            yield Row(number, place, {**more, **_named(place, fields, names)})
        except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{path}: cannot be read as an Arrow stream after row {number} ({reason}).") from None


def _class_names(folder: Path) -> dict[str, list[str]]:
    if not (folder / INFO).is_file():
        return {}
    features = _get(folder / INFO, "features", dict, {})
    return {
        column: [str(name) for name in kind["names"]]
        for column, kind in features.items()
        if isinstance(kind, dict) and kind.get("_type") == "ClassLabel" and isinstance(kind.get("names"), list)
    }


def _named(place: str, fields: dict[str, Any], names: dict[str, list[str]]) -> dict[str, Any]:
    for column, of in names.items():
        value = fields.get(column)
        if isinstance(value, int):
            if not 0 <= value < len(of):
                raise DataError(f"{place}: {column!r} is {value}, which is none of its {len(of)} classes.")
            fields = {**fields, column: of[value]}
    return fields


def _get(path: Path, key: str, kind: type, default: Any = None) -> Any:
    tree = load(path)
    found = tree.get(key, default) if isinstance(tree, dict) else None
    if found is None and default is not None:
        return default
    if not isinstance(found, kind):
        raise DataError(f"{path}: expected {key!r} with {kind.__name__}; was this written by datasets' save_to_disk?")
    return found
