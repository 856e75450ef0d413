"""Parquet, read one batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
                for fields in _as_python(batch):
                    number += 1
                    yield Row(number, f"{path}, row {number}", fields)
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read as Parquet after row {number} ({reason}).") from None


def _as_python(batch: pyarrow.RecordBatch) -> list[dict[str, Any]]:
    """Without times: Python has none as fine as Arrow's may be, and no column that is read is one."""
    kept = [place for place, field in enumerate(batch.schema) if not pyarrow.types.is_temporal(field.type)]
    rows: list[dict[str, Any]] = batch.select(kept).to_pylist()
    return rows
