"""Gradients cut by coordinates: a shard has its own range of every task's gradient, checks it and combines it.

No coordinate is in two shards and every coordinate is combined in address order, so the bits do not depend on the cut.
What is known of a whole gradient alone, its norm, travels beside it. Nothing here knows of Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from metacl.aggregation import Aggregator, Contribution
from metacl.coordination.flat import Flat, checksum, examine
from metacl.coordination.gathering import StepSum
from metacl.tasks import TaskAddress

Verdict = Literal["sound", "damaged", "not finite"]


@dataclass(frozen=True)
class Part:
    """Numbers `begin` to begin + len(numbers) of a flat gradient, with the sha256 of their bytes."""

    address: TaskAddress
    begin: int
    numbers: Flat
    checksum: str


@dataclass(frozen=True)
class Combined:
    """The same range of the combined gradient."""

    begin: int
    numbers: Flat
    checksum: str


class Counted(NamedTuple):
    """A task that has a part in the step: its weight, and the norm of its whole gradient."""

    address: TaskAddress
    examples: int
    norm: float | None


@dataclass
class GradientShard:
    """One range of coordinates of one step after the other.

    version : of the parameters that the step's gradients are of; empty in a shard that was just (re)started, which
    takes any.
    """

    aggregator: Aggregator
    version: str = ""
    _parts: dict[TaskAddress, Part] = field(default_factory=dict)
    _sum: StepSum | None = None
    _begin: int = 0

    def begin(self, version: str) -> None:
        """A new step, or the same one again: forget what there is."""
        self.version, self._parts, self._sum = version, {}, StepSum(self.aggregator)

    def receive(self, version: str, part: Part) -> Verdict:
        """Keep the part if it is sound and of this step. One for other parameters is nobody's any more, and dropped."""
        if self.version not in ("", version):
            return "sound"
        sound, finite = examine(part.numbers, part.checksum)
        if not sound:
            return "damaged"
        if not finite:
            return "not finite"
        self._parts[part.address] = part
        return "sound"

    def combine(self, portion: int, counted: Sequence[Counted]) -> bool:
        """Combine portion number `portion` (from 0) of the step, and forget its parts.

        False: some of them are not here, or a portion before is not; this shard was started again in between.
        """
        if self._sum is None or self._sum.portions != portion or any(c.address not in self._parts for c in counted):
            return False
        (self._begin,) = {self._parts[c.address].begin for c in counted}
        self._sum.add([Contribution(c.address, self._parts[c.address].numbers, c.examples, c.norm) for c in counted])
        self._parts = {}
        return True

    def result(self, portions: int) -> Combined | None:
        """Of a step of so many portions; None if they are not all here."""
        if self._sum is None or self._sum.portions != portions:
            return None
        numbers = self._sum.result()
        return Combined(self._begin, numbers, checksum(numbers))
