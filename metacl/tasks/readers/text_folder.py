"""Plain texts in a folder: a folder per class or domain with a file per text, or one file per domain.

``tickets/billing/0001.txt`` is one text of "billing". ``domains/recipes.txt`` is all of "recipes"; a line with U+241E
(SYMBOL FOR RECORD SEPARATOR) stands between two of its documents. Not read are files whose names begin with a dot, and
files beside the folders and domains that do not end in .txt, such as a LICENSE.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from metacl.errors import DataError
from metacl.tasks.readers.decode import decode
from metacl.tasks.readers.rows import Row

SEPARATOR = "\u241e"


def rows(folder: Path) -> Iterator[Row]:
    """Fields "text", and "label" and "domain": the folder's name, or the file's without its ending."""
    entries = [entry for entry in _entries(folder) if entry.is_dir() or entry.suffix == ".txt"]
    if not entries:
        raise DataError(f"{folder}: no texts there. Expected a folder per class, or a .txt file per domain.")
    for entry in entries:
        if not entry.is_dir():
            yield from file_rows(entry)
            continue
        for file in _entries(entry):
            if file.is_dir():
                raise DataError(f"{file}: a folder in the folder of a class; expected {folder}/<class>/<file>.")
            text = decode(file)
            if not text.strip():
                raise DataError(f"{file}, line 1: the file is empty. Fill it in or remove it.")
            yield Row(1, str(file), _fields(text, entry.name))


def file_rows(path: Path) -> Iterator[Row]:
    """The documents of one file; a row's line is that where its document begins."""
    line, found = 1, False
    for document in decode(path).split(SEPARATOR):
        if document.strip():
            found = True
            blank = len(document) - len(document.lstrip())
            begins = line + document.count("\n", 0, blank)
            yield Row(begins, f"{path}, line {begins}", _fields(document.strip(), path.stem))
        line += document.count("\n")
    if not found:
        raise DataError(f"{path}, line 1: the file is empty. Fill it in or remove it.")


def _fields(text: str, name: str) -> dict[str, str]:
    """A folder is a class to who wants classes, and a domain to who wants domains."""
    return {"text": text, "label": name, "domain": name}


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
