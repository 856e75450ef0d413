"""What every reader gives: rows of named fields, each with the place it came from. The name says which reader it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metacl.errors import DataError

KINDS = ".jsonl, .json or .csv (each may end in .xz), .parquet"


@dataclass(frozen=True)
class Row:
    """Named fields. line : 1-based, of the file; the row's number where a file has no lines. place : for people."""

    line: int
    place: str
    fields: dict[str, Any]


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file or folder, in its order.

    Parameters
    ----------
    path : Path
        A ``.jsonl``, ``.json``, ``.csv`` or ``.parquet`` file (see the modules of those names), a folder that
        `datasets` saved to disk, or a folder of plain texts.

    Raises
    ------
    DataError
        Missing, empty or unreadable, unknown ending, not UTF-8, malformed row.
    """
    found = False
    for row in _reader(path)(path):
        found = True
        yield row
    if not found:
        raise DataError(f"{path}: the file holds no rows. Expected one example a line.")


def _reader(path: Path) -> Callable[[Path], Iterator[Row]]:
    """The reader for a path. Each is imported where it is used: pyarrow takes memory that most readers do not need."""
    if not path.exists():
        raise DataError(f"{path}: no such file. Paths are relative to {Path.cwd()}.")
    kind = path.name.removesuffix(".xz").rsplit(".", 1)[-1].lower()
    if path.is_dir():
        kind = "saved dataset" if is_saved_dataset(path) else "text folder"
    elif path.suffix == ".xz" and kind in ("parquet", "txt"):
        kind += ".xz"
    if kind in ("txt", "text folder"):
        from metacl.tasks.readers import text_folder

        return text_folder.rows if path.is_dir() else text_folder.file_rows
    if kind == "saved dataset":
        from metacl.tasks.readers import saved_dataset

        return saved_dataset.rows
    if kind == "parquet":
        from metacl.tasks.readers import parquet_file

        return parquet_file.rows
    from metacl.tasks.readers import csv_file, json_file, jsonl_file

    by_ending = {"jsonl": jsonl_file.rows, "json": json_file.rows, "csv": csv_file.rows}
    if kind not in by_ending:
        raise DataError(f"{path}: unknown kind of file {kind!r}; expected {KINDS}, .txt, or a folder of texts.")
    return by_ending[kind]


def is_saved_dataset(folder: Path) -> bool:
    """Whether Hugging Face `datasets` saved this folder: a table, or a dict of tables."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()
