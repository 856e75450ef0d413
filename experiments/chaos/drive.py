"""One part of a run, as `metacl train` would do it, that writes down what happened: python drive.py CONFIG EVENTS.

The exit status is that of `metacl train`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import metacl
from metacl.coordination.step import StepMetrics
from metacl.errors import MetaclError


class Tally:
    """Progress as lines of JSON: every note, and for every finished step which of its tasks were counted, in order."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._counted: list[int] = []

    def note(self, text: str) -> None:
        """Write it down."""
        self._write(note=text)

    def task_done(self, step: int, done: int, of: int) -> None:
        """`done` would stay the same if a task were counted twice."""
        self._counted = [*self._counted, done] if done > 1 else [done]

    def step_done(self, metrics: StepMetrics, steps: int) -> None:
        """What the step consisted of."""
        self._write(step=metrics.step, counted=self._counted, left_out=metrics.left_out, seconds=metrics.seconds)

    def evaluation_progress(self, done: int, of: int) -> None:
        """There is none."""

    def _write(self, **what: Any) -> None:
        self._file.write(json.dumps({"time": time.time(), **what}) + "\n")


def main() -> int:
    """Run until the end, or until something stops it."""
    config, tally = metacl.load_config(sys.argv[1]), Tally(Path(sys.argv[2]))
    try:
        metacl.train(config, tally)
    except MetaclError as error:
        tally.note(f"ended with {error.exit_code}: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
