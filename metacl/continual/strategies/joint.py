"""The bounds that have all data: cumulative training, and joint training once (no continual learning at all)."""

from __future__ import annotations

from metacl.continual.experience import Address
from metacl.continual.moment import Moment
from metacl.continual.strategies.base import STRATEGIES, State, Strategy
from metacl.learners.base import Params


@STRATEGIES.register("cumulative")
class Cumulative(Strategy):
    """Every experience is learned from all examples so far. afresh : from the start, not from where it stands."""

    afresh: bool = False

    def training_set(self, moment: Moment, addresses: list[Address], state: State) -> list[Address]:
        """All examples up to here."""
        stream = moment.pool.stream
        return [address for k in range(moment.experience + 1) for address in stream.train_addresses(k)]

    def begin(self, moment: Moment, params: Params, state: State) -> tuple[Params, State]:
        """From the start, if so wished."""
        return (moment.start if self.afresh else params), state


@STRATEGIES.register("joint")
class Joint(Strategy):
    """Nothing is learned before the last experience, and then everything at once, from the start: an upper bound.

    Of R only the last row has a meaning.
    """

    def training_set(self, moment: Moment, addresses: list[Address], state: State) -> list[Address]:
        """All examples, at the end."""
        stream = moment.pool.stream
        if moment.experience + 1 < len(stream):
            return []
        return [address for k in range(len(stream)) for address in stream.train_addresses(k)]

    def begin(self, moment: Moment, params: Params, state: State) -> tuple[Params, State]:
        """The start."""
        return moment.start, state
