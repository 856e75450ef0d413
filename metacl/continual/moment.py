"""Where a continual run stands: all that a strategy may look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from metacl.continual.experience import Address
from metacl.continual.model import Model
from metacl.continual.pool import Minibatch, Pool
from metacl.learners.base import Params
from metacl.tasks.episode import TaskAddress
from metacl.tasks.randomness import AddressedRandom

STREAMS = 16
"""Independent random streams that a strategy may ask for at one step."""


@dataclass(frozen=True)
class Moment:
    """Where a run stands, and what a strategy may look at.

    experience : of the stream, from 0. step : optimizer steps taken in it. epoch, turn : the pass over its examples,
    and the steps taken in that pass. place : which in the list of strategies.
    start : the parameters before the first experience. batch_size : of the new examples in a step. shuffle : whether
    they come in an order of their own at each pass.
    """

    model: Model
    pool: Pool
    start: Params
    seed: int
    batch_size: int
    shuffle: bool = True
    experience: int = 0
    step: int = 0
    epoch: int = 0
    turn: int = 0
    place: int = 0

    def at(self, experience: int, step: int = 0, epoch: int = 0, turn: int = 0) -> Moment:
        """The same run elsewhere."""
        return replace(self, experience=experience, step=step, epoch=epoch, turn=turn)

    def of(self, place: int) -> Moment:
        """The same moment as another strategy sees it."""
        return replace(self, place=place)

    def random(self, stream: int = 0, at: int | None = None) -> AddressedRandom:
        """Random numbers by seed, experience, step (or a count of one's own), strategy and `stream` alone."""
        address = TaskAddress("train", self.seed, self.experience, self.step if at is None else at)
        return AddressedRandom(address, 1 + self.place * STREAMS + stream)

    def minibatch(self, addresses: Sequence[Address]) -> Minibatch:
        """Training examples together, told apart as examples are that are learned now."""
        return self.pool.minibatch(addresses, self.experience)

    def minibatches(self, addresses: Sequence[Address], size: int) -> Iterator[Minibatch]:
        """All of them, `size` at a time."""
        return self.pool.minibatches(addresses, size, self.experience)

    def alone(self, addresses: Sequence[Address]) -> Moment:
        """The same moment for minibatches that are this rank's own. addresses : all that any rank will ask for."""
        learner = self.model.learner.alone()
        model = Model(learner, self.model.classes, self.model.frozen)
        return replace(self, model=model, pool=self.pool.alone(addresses))

    @cached_property
    def new(self) -> list[int]:
        """Classes that this experience brings, sorted."""
        return sorted(set(self.pool.stream.experiences[self.experience].train.labels) - set(self.seen))

    @cached_property
    def seen(self) -> list[int]:
        """Classes of the experiences before this one, sorted."""
        before = self.pool.stream.experiences[: self.experience]
        return sorted({label for experience in before for label in experience.train.labels})
