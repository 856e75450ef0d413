"""Files of labelled text, read line by line: JSONL and CSV, plain or xz-compressed.

Every error names the file and the line. Nothing is guessed silently: a missing column lists those there are.
"""

from __future__ import annotations

import csv
import io
import json
import lzma
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from metacl.errors import DataError


@dataclass(frozen=True)
class Example:
    """One text with its label and the line it came from (1-based)."""

    text: str
    label: str
    line: int


def read_examples(path: Path, text_column: str, label_column: str) -> list[Example]:
    """Read all examples of a JSONL or CSV file.

    Parameters
    ----------
    path : Path
        ``.jsonl`` or ``.csv``; a further ``.xz`` is decompressed.
    text_column, label_column : str
        Names of the two fields every row must have.

    Raises
    ------
    DataError
        Missing or empty file, unknown ending, not UTF-8, malformed row, missing or empty field.
    """
    content = _decode(path)
    kind = path.name.removesuffix(".xz").rsplit(".", 1)[-1].lower()
    if kind == "jsonl":
        rows = _jsonl_rows(path, content)
    elif kind == "csv":
        rows = _csv_rows(path, content)
    else:
        raise DataError(f"{path}: unknown kind of file {kind!r}; expected .jsonl or .csv (each may end in .xz).")
    examples = []
    for line, row in rows:
        text, label = (_field(path, line, row, column) for column in (text_column, label_column))
        examples.append(Example(text, label, line))
    if not examples:
        raise DataError(f"{path}: the file holds no rows. Expected one example a line.")
    return examples


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a UTF-8 text file. Raises `DataError` as `read_examples` does."""
    lines = [line.strip() for line in _decode(path).split("\n")]
    return [line for line in lines if line]


def _decode(path: Path) -> str:
    if not path.exists():
        raise DataError(f"{path}: no such file. Paths are relative to {Path.cwd()}.")
    if path.is_dir():
        raise DataError(f"{path}: is a folder; expected a .jsonl or .csv file.")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    if path.suffix == ".xz":
        try:
            raw = lzma.decompress(raw)
        except lzma.LZMAError as error:
            raise DataError(f"{path}: ends in .xz but cannot be decompressed ({error}).") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        decoded = error.object  # without the byte order mark, which error.start does not count
        line = decoded.count(b"\n", 0, error.start) + 1
        if path.suffix == ".xz":
            mend = f"xz -dc {path.name} | iconv -f LATIN1 -t UTF-8 | xz > converted{''.join(path.suffixes[-2:])}"
        else:
            mend = f"iconv -f LATIN1 -t UTF-8 {path.name} > converted{path.suffix}"
        raise DataError(
            f"{path}, line {line}: not UTF-8 (byte 0x{decoded[error.start]:02x}). Convert it, for example: {mend}"
        ) from None


def _jsonl_rows(path: Path, content: str) -> Iterator[tuple[int, dict[str, object]]]:
    # Not str.splitlines: it also breaks at U+2028 and friends, which may stand inside a JSON string.
    for line, text in enumerate(content.split("\n"), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {line}: not JSON ({error.msg} at column {error.colno}).") from None
        except RecursionError:
            raise DataError(f"{path}, line {line}: JSON that is nested too deeply.") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {line}: expected an object with named fields, got {type(row).__name__}.")
        yield line, row


def _csv_rows(path: Path, content: str) -> Iterator[tuple[int, dict[str, object]]]:
    csv.field_size_limit(sys.maxsize)  # a long text is no mistake; the default is 128 KiB
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    line = 0
    try:
        if reader.fieldnames:  # reads the header
            line = reader.line_num
        for row in reader:
            line = reader.line_num
            if None in row:
                raise DataError(f"{path}, line {line}: more fields than the header has; quote fields that hold commas.")
            yield line, dict(row)
    except csv.Error as error:
        raise DataError(f"{path}, line {line + 1}: not CSV ({error}).") from None


def _field(path: Path, line: int, row: dict[str, object], column: str) -> str:
    if column not in row:
        raise DataError(
            f"{path}, line {line}: no column {column!r}; the row has {', '.join(map(repr, row))}. "
            f"Name the columns with data.text_column and data.label_column."
        )
    value = row[column]
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{path}, line {line}: {column!r} is empty. Fill it in or remove the row.")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise DataError(f"{path}, line {line}: {column!r} is a {type(value).__name__}; expected text.")
    return str(value).strip()
