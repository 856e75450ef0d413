"""Parquet, read one batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet

from metacl.errors import DataError
from metacl.tasks.readers.rows import Row

BATCH = 4096
"""Rows that are in memory together."""


def rows(path: Path) -> Iterator[Row]:
    """A row's `line` is its number."""
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH):
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(number, f"{path}, row {number}", fields)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read as Parquet after row {number} ({reason}).") from None
