"""JSONL: one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metacl.errors import DataError
from metacl.tasks.readers.decode import decode, not_utf8
from metacl.tasks.readers.json_text import parse
from metacl.tasks.readers.rows import Row

BOM = b"\xef\xbb\xbf"
"""The byte order mark that some editors put in front."""


def rows(path: Path) -> Iterator[Row]:
    """One a line that is not blank; a file that is not compressed is never in memory as a whole."""
    for line, text in _lines(path):
        if text.strip():
            yield Row(line, f"{path}, line {line}", parse_line(path, line, text))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    # Split at line feeds only: str.splitlines also breaks at U+2028 and friends, which may stand in a JSON string.
    if path.suffix == ".xz":
        yield from enumerate(decode(path).split("\n"), start=1)
        return
    for line, _, raw in raw_lines(path):
        yield line, utf8(path, line, raw)


def raw_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number, byte offset and bytes of each line; a byte order mark is left out."""
    try:
        with path.open("rb") as file:
            offset = 0
            for line, raw in enumerate(file, start=1):
                mark = len(BOM) if line == 1 and raw.startswith(BOM) else 0
                yield line, offset + mark, raw[mark:]
                offset += len(raw)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None


def utf8(path: Path, line: int, raw: bytes) -> str:
    """A line as text. Raises `DataError` with its place if it is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(path, line, raw[error.start]) from None


def parse_line(path: Path, line: int, text: str) -> dict[str, Any]:
    """The object in one line. Raises `DataError` with its place if there is none."""
    row = parse(text, path, line)
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {line}: expected an object with named fields, got {type(row).__name__}.")
    return row
