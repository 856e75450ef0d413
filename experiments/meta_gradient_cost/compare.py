"""Methods against each other in one run: each warmed up in its own process, then one meta-step of each in turn.

A machine drifts, and other people use it. Within a round all methods meet the same machine, and the order of a round is
that of the one before reversed; so the ratio of two methods is taken within each round, and the median over the rounds
is what is reported.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from processes import Served, why_not


@dataclass(frozen=True)
class Ratio:
    """Time of `method` over that of `against`: median, least and greatest over the rounds."""

    method: str
    against: str
    median: float
    least: float
    greatest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} × {self.against} ({self.least:.2f}–{self.greatest:.2f})"


@dataclass
class Rounds:
    """Seconds of every method in every round (lists of one length), of its warm-up, and its error if known."""

    case: str
    steps: int
    seconds: dict[str, list[float]]
    warm_up_s: dict[str, float]
    errors: dict[str, float | None]

    def ratio(self, method: str, against: str) -> Ratio:
        """Method over method, round by round."""
        pairs = zip(self.seconds[method], self.seconds[against], strict=True)
        ratios = [one / other for one, other in pairs]
        return Ratio(method, against, statistics.median(ratios), min(ratios), max(ratios))

    def fastest(self, methods: Sequence[str]) -> str:
        """The method with the least median time among those that took part."""
        return min((m for m in methods if m in self.seconds), key=lambda m: statistics.median(self.seconds[m]))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def rounds(case: str, steps: int, methods: Sequence[str], count: int, tasks: int = 4) -> Rounds:
    """Run `count` rounds of those methods that can run here; warm-ups follow one another, too."""
    with ExitStack() as stack:
        able = [method for method in methods if why_not(method) is None]
        served = [stack.enter_context(Served(method, case, steps, tasks)) for method in able]
        seconds: dict[str, list[float]] = {one.method: [] for one in served}
        for number in range(count):
            for one in served if number % 2 == 0 else reversed(served):
                seconds[one.method].append(one.step())
        warm_ups = {one.method: one.warm_up_s for one in served}
        return Rounds(case, steps, seconds, warm_ups, {one.method: one.error for one in served})
