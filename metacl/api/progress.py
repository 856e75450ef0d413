"""Who is told how training and evaluation go."""

from __future__ import annotations

from typing import Protocol

from metacl.coordination.step import Progress


class EvaluationProgress(Progress, Protocol):
    """A `Progress` that also follows an evaluation."""

    def evaluation_progress(self, done: int, of: int) -> None:
        """`done` of `of` episodes are scored."""
        ...
