"""CSV with a header; fields may be quoted and then hold commas and line ends."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from metacl.errors import DataError
from metacl.tasks.readers.decode import decode
from metacl.tasks.readers.rows import Row


def rows(path: Path) -> Iterator[Row]:
    """One a record; its line is that where it ends."""
    csv.field_size_limit(sys.maxsize)  # a long text is no mistake; the default is 128 KiB
    reader = csv.DictReader(io.StringIO(decode(path), newline=""), strict=True)
    line = 0
    try:
        if reader.fieldnames:  # reads the header
            line = reader.line_num
            if twice := [name for name, count in Counter(reader.fieldnames).items() if count > 1]:
                raise DataError(f"{path}, line {line}: {len(twice)} names stand over several columns: {twice[0]!r}.")
        for row in reader:
            line = reader.line_num
            if None in row:
                raise DataError(f"{path}, line {line}: more fields than the header has; quote fields that hold commas.")
            yield Row(line, f"{path}, line {line}", dict(row))
    except csv.Error as error:
        raise DataError(f"{path}, line {line + 1}: not CSV ({error}).") from None
