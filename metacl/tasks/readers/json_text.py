"""Text as JSON, with the errors of both readers of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from metacl.errors import DataError


def parse(text: str, path: Path, line: int | None = None) -> Any:
    """The content of `text`, which is all of a file, or its line `line`.

    Raises `DataError` with the line where it stops being JSON.
    """
    where = str(path) if line is None else f"{path}, line {line}"
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}, line {error.lineno if line is None else line}"
        raise DataError(f"{place}: not JSON ({error.msg} at column {error.colno}).") from None
    except ValueError as error:  # a whole number of thousands of digits
        raise DataError(f"{where}: JSON that Python does not take ({error}).") from None
    except RecursionError:
        raise DataError(f"{where}: JSON that is nested too deeply.") from None
