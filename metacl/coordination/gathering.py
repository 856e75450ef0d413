"""Where a step's gradients are combined: in this process, or by shards elsewhere. The coordinator sees no difference.

A portion of tasks (`outer.accumulate`) is combined in address order by itself; at the end the portions are averaged by
their numbers of tasks, in float64, and rounded to float32 once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from metacl.aggregation import Aggregator, Contribution
from metacl.coordination.flat import Flat
from metacl.coordination.worker import PartedGradient, TaskResult
from metacl.tasks import TaskAddress


class GradientsLost(Exception):
    """Some of a step's gradients are no longer anywhere. All of the step is computed again, with the same result."""


class Gathering(ABC):
    """Takes the gradients of one step."""

    @abstractmethod
    def combine(self, results: Mapping[TaskAddress, TaskResult]) -> None:
        """Add a portion of one task or more. Raises `GradientsLost`."""

    @abstractmethod
    def result(self) -> Flat | PartedGradient:
        """The step's gradient (P,), or its norm where it stays with the parts. Raises `GradientsLost`."""


class InProcess(Gathering):
    """All of it here: the results carry their gradients."""

    def __init__(self, aggregator: Aggregator) -> None:
        self._sum = StepSum(aggregator)

    def combine(self, results: Mapping[TaskAddress, TaskResult]) -> None:
        """In address order."""
        self._sum.add([Contribution(a, r.whole, r.examples, r.norm) for a, r in sorted(results.items())])

    def result(self) -> Flat:
        """Rounded to float32."""
        return self._sum.result()


class StepSum:
    """The portions of a step so far: of whole gradients, or of the same part of each."""

    def __init__(self, aggregator: Aggregator) -> None:
        self._aggregator = aggregator
        self._portions: list[tuple[int, NDArray[np.float64]]] = []

    @property
    def portions(self) -> int:
        """How many there are."""
        return len(self._portions)

    def add(self, contributions: Sequence[Contribution]) -> None:
        """One more portion, in the order given."""
        self._portions.append((len(contributions), self._aggregator.combine(contributions)))

    def result(self) -> Flat:
        """The portions' average by numbers of tasks."""
        (count, combined), *others = self._portions
        if others:
            total = count + sum(count for count, _ in others)
            combined = combined * (count / total)
            for count, portion in others:
                combined += portion * (count / total)
        return combined.astype(np.float32)
