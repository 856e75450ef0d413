"""Examples as methods get them: as they were read, and encoded only if somebody asks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from metacl.learners.base import Batch, Learner


class Examples:
    """B examples as they were read: texts, or arrays. labels : class positions; None where nobody may know them."""

    def __init__(self, learner: Learner, inputs: Sequence[Any], labels: Sequence[int] | None) -> None:
        self._learner = learner
        self.inputs = inputs
        self.labels = labels

    @cached_property
    def batch(self) -> Batch:
        """Encoded by the run's learner, its frozen layers included, when first asked for."""
        return self._learner.encode(self.inputs, self.labels)
