"""A JSONL file that is too large for memory, by the byte offsets of its lines.

The file is read once, checked line by line, and indexed by class; an episode then reads just the lines it draws. The
index is memory-mapped and kept in the user's cache (XDG_CACHE_HOME, else ~/.cache) next to a fingerprint of the file.
Classes, duplicates and episodes are those of the same file read into memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np

from metacl.errors import DataError, ResourceError
from metacl.tasks.class_texts import ClassTexts, Labelled, class_texts
from metacl.tasks.readers import Columns, Row, TextTable
from metacl.tasks.readers.columns import text_of
from metacl.tasks.readers.examples import example_of
from metacl.tasks.readers.jsonl_file import parse_line, raw_lines, utf8

INDEX_FROM = 256 * 2**20
"""Bytes from which a file is indexed; below, reading it whole is quicker and takes less than a few GB."""

CHUNK = 1 << 16
"""Lines that the index is written in portions of, so that building it takes little memory."""

FORMAT = 2
"""Counts up when the files of an index change their meaning."""


def wants_index(path: Path) -> bool:
    """Whether a file is one to index: JSONL that is not compressed, and large."""
    return path.suffix.lower() == ".jsonl" and path.is_file() and path.stat().st_size >= INDEX_FROM


def indexed_texts(table: TextTable) -> ClassTexts:
    """The texts of every class, each read from the file when it is asked for.

    Raises
    ------
    DataError
        A line that cannot work, as when the file is read into memory; a file that changes meanwhile.
    ResourceError
        The index cannot be written.
    """
    key = {"format": FORMAT, **_fingerprint(table.path), "columns": dict(table.columns.names)}
    folder = _cache() / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    if not (folder / "index.json").is_file():
        _build(table, key, folder)
    stored = json.loads((folder / "index.json").read_text("utf-8"))
    if stored["key"] != key:
        raise DataError(f"{folder}: the index of another file. Remove this folder; it is made anew.")
    offsets = np.memmap(folder / "offsets.u8", dtype="<u8", mode="r")
    lines = _Lines(table.path, table.columns)
    texts: dict[Labelled, Sequence[str]] = {
        (domain, label): IndexedTexts(lines, offsets[start : start + count])
        for domain, label, start, count in stored["classes"]
    }
    return class_texts(texts, stored["lines"])


class _Lines:
    """The file, kept open, and how a line becomes a text."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self._path = path
        self._column = columns["text_column"]
        self._file: BinaryIO = path.open("rb")
        self._version = self._now()

    def text_at(self, offset: int) -> str:
        """The text of the line that begins at `offset`."""
        self._file.seek(offset)
        place = f"{self._path}, byte {offset}"
        if self._now() != self._version:
            raise DataError(f"{self._path}: the file changed during the run, and so would its episodes. Run it again.")
        try:
            fields = json.loads(self._file.readline())
        except ValueError:
            raise DataError(f"{place}: not the line that was indexed. Remove {_cache()}; it is made anew.") from None
        return text_of(Row(0, place, fields), self._column, tokens=True)


    def _now(self) -> tuple[int, int]:
        stat = os.fstat(self._file.fileno())
        return stat.st_size, stat.st_mtime_ns


class IndexedTexts(Sequence[str]):
    """The texts of one class. offsets : (B,) where their lines begin."""

    def __init__(self, lines: _Lines, offsets: np.ndarray) -> None:
        self._lines = lines
        self._offsets = offsets

    def __len__(self) -> int:
        """B."""
        return len(self._offsets)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        """One text is read now; a slice when it is asked."""
        if isinstance(place, slice):
            return IndexedTexts(self._lines, self._offsets[place])
        return self._lines.text_at(int(self._offsets[place]))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metacl" / "line_index"


def _fingerprint(path: Path) -> dict[str, Any]:
    """What tells a file from its later versions, without reading all of it: size, time, and its two ends."""
    stat = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(1 << 20))
        file.seek(max(0, stat.st_size - (1 << 20)))
        digest.update(file.read(1 << 20))
    return {
        "path": str(path.resolve()),
        "size": stat.st_size,
        "modified_ns": stat.st_mtime_ns,
        "changed_ns": stat.st_ctime_ns,  # which no copy sets back, as it does the time before
        "ends": digest.hexdigest(),
    }


def _build(table: TextTable, key: dict[str, Any], folder: Path) -> None:
    """Write the index aside and rename it; whoever builds the same one meanwhile makes the same files."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            classes, lines = _write(table, aside)
            content = {"key": key, "lines": lines, "classes": classes}
            (aside / "index.json").write_text(json.dumps(content), encoding="utf-8")
            if any(key[name] != value for name, value in _fingerprint(table.path).items()):
                raise DataError(f"{table.path}: changed while it was indexed. Run it again when the file is complete.")
            with contextlib.suppress(OSError):  # somebody else was first
                aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        if not (folder / "index.json").is_file():
            raise OSError(0, "the index could not be renamed", str(folder))
    except OSError as error:
        raise ResourceError(
            f"{folder.parent}: the index of {table.path} cannot be written ({error.strerror}). Free some space, or set "
            f"XDG_CACHE_HOME to a folder with about 30 bytes a line."
        ) from None


@dataclass
class _Scanned:
    """Per line, in files: where it begins, its class, a hash of its text."""

    classes: dict[Labelled, int]
    counts: list[int]
    lines: int


def _write(table: TextTable, aside: Path) -> tuple[list[tuple[str | None, str, int, int]], int]:
    """offsets.u8: where each line begins, class after class in the file's order. Returns (domain, label, start, count).

    First the lines in the file's order, then those of a class together, then each class without its duplicates: every
    portion is small, but for the hashes of a single class.
    """
    scanned = _scan(table, aside)
    starts = np.concatenate([[0], np.cumsum(scanned.counts)]).astype(int)
    _group(aside, starts[:-1].copy(), scanned.lines)
    found, kept = [], 0
    with (aside / "offsets.u8").open("wb") as out:
        for (domain, label), code in scanned.classes.items():
            offsets, hashes = (
                np.fromfile(aside / name, dtype="<u8", count=scanned.counts[code], offset=8 * int(starts[code]))
                for name in ("grouped.u8", "grouped_hashes.u8")
            )
            first = np.sort(np.unique(hashes, return_index=True)[1])
            offsets[first].tofile(out)
            found.append((domain, label, kept, len(first)))
            kept += len(first)
    for name in ("lines.u8", "codes.u4", "hashes.u8", "grouped.u8", "grouped_hashes.u8"):
        (aside / name).unlink()
    return found, scanned.lines


def _scan(table: TextTable, aside: Path) -> _Scanned:
    classes: dict[Labelled, int] = {}
    counts: list[int] = []
    lines = 0
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context((aside / name).open("wb")) for name in ("lines.u8", "codes.u4", "hashes.u8")]
        for portion in _portions(table):
            columns: tuple[list[int], list[int], list[int]] = ([], [], [])
            for offset, labelled, digest in portion:
                code = classes.setdefault(labelled, len(classes))
                if code == len(counts):
                    counts.append(0)
                counts[code] += 1
                for column, value in zip(columns, (offset, code, digest), strict=True):
                    column.append(value)
            for file, column, kind in zip(files, columns, ("<u8", "<u4", "<u8"), strict=True):
                np.array(column, dtype=kind).tofile(file)
            lines += len(columns[0])
    return _Scanned(classes, counts, lines)


def _portions(table: TextTable) -> Iterator[list[tuple[int, Labelled, int]]]:
    portion: list[tuple[int, Labelled, int]] = []
    path = table.path
    for number, offset, raw in raw_lines(path):
        text = utf8(path, number, raw)
        if not text.strip():
            continue
        example = example_of(Row(number, f"{path}, line {number}", parse_line(path, number, text)), table.columns)
        digest = hashlib.blake2b(example.text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        portion.append((offset, (example.domain, example.label), int.from_bytes(digest, "little")))
        if len(portion) == CHUNK:
            yield portion
            portion = []
    yield portion


def _group(aside: Path, cursor: np.ndarray, lines: int) -> None:
    """Bring the lines of a class together, stably. cursor : (C,) where each class's next line goes."""
    with (aside / "grouped.u8").open("wb") as offsets_out, (aside / "grouped_hashes.u8").open("wb") as hashes_out:
        for first in range(0, lines, CHUNK):
            count = min(CHUNK, lines - first)
            offsets, codes, hashes = (
                np.fromfile(aside / name, dtype=kind, count=count, offset=int(kind[-1]) * first)
                for name, kind in (("lines.u8", "<u8"), ("codes.u4", "<u4"), ("hashes.u8", "<u8"))
            )
            order = np.argsort(codes, kind="stable")
            present, begins = np.unique(codes[order], return_index=True)
            for code, members in zip(present, np.split(order, begins[1:]), strict=True):
                for out, values in ((offsets_out, offsets), (hashes_out, hashes)):
                    out.seek(8 * int(cursor[code]))
                    values[members].tofile(out)
                cursor[code] += len(members)
