"""Who computes what: a pure state machine that hands out every address and takes exactly one result for each.

It knows groups by number and tasks by address, and neither Ray nor clocks of its own: an executor tells it what
happened and asks what to do. Whatever the order of results, losses, duplicates and delays, every address of a call is
accepted once or given up once, so what is combined afterwards does not depend on that order.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from metacl.config import Stragglers
from metacl.tasks import TaskAddress

QUEUE = 2
"""Tasks a group holds at a time: one it computes, one that waits, so that it never waits for the driver."""

FAILURES = 2
"""A task that is refused by two groups is given up: one retry, elsewhere."""

WINDOW = 64
"""Finished tasks that the deadline is estimated from: the latest ones, of earlier calls too."""

ENOUGH = 5
"""Finished tasks before there is a deadline at all."""

SPREAD = 0.1
"""Least spread of the times, as a part of their median: tasks that all take the same time have a MAD of 0."""

GRACE_S = 1.0
"""Being late by less is not worth computing anything twice."""


@dataclass(frozen=True)
class Ticket:
    """One hand-out of one address to one group. `call` counts the parameters: each call has its own, or several."""

    number: int
    group: int
    address: TaskAddress
    call: int


@dataclass
class _Open:
    """What is known of an address that is neither accepted nor given up."""

    failed_at: set[int] = field(default_factory=set)
    failures: int = 0
    losses: int = 0
    overdue: bool = False


class Scheduler:
    """Hands out addresses, takes results.

    Parameters
    ----------
    stragglers : Stragglers
        What to do with tasks that take much longer than others.
    queue : int
        The most tasks a group holds at a time.
    clock : callable
        Seconds that never go back.
    """

    def __init__(
        self, stragglers: Stragglers, queue: int = QUEUE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stragglers = stragglers
        self._queue = queue
        self._clock = clock
        self._call = self._begun = 0
        self._staleness = 0
        self._open: dict[TaskAddress, _Open] = {}
        self._waiting: deque[TaskAddress] = deque()
        self._held: dict[int, list[Ticket]] = {}  # by group, oldest first: the oldest is the one it computes
        self._since: dict[int, float] = {}  # when a group began with its oldest
        self._seconds_of: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))
        self._kind = ""
        self._accepted = self._enough = 0
        self._issued = 0

    def begin(
        self, addresses: Sequence[TaskAddress], minimum_completion: float = 1.0, kind: str = "", staleness: int = 0
    ) -> None:
        """A new call. What groups still hold of the one before is stale from now on, and only keeps them busy.

        minimum_completion : the part of the addresses that must be accepted before stragglers may be dropped.
        kind : of work; only times of the same kind are compared.
        staleness : how often the parameters may be renewed while a task is out.
        """
        self._call += 1
        self._begun, self._staleness = self._call, staleness
        self._kind = kind
        self._open = {address: _Open() for address in addresses}
        self._waiting = deque(self._open)
        self._accepted = 0
        self._enough = math.ceil(minimum_completion * len(self._open))

    def extend(self, addresses: Iterator[TaskAddress]) -> None:
        """Take as many more addresses into the call as groups have room for."""
        free = sum(self._queue - len(held) for held in self._held.values()) - len(self._waiting)
        self.add(list(itertools.islice(addresses, max(0, free))))

    def add(self, addresses: Sequence[TaskAddress]) -> None:
        """Take more addresses into the call, new ones."""
        self._open.update((address, _Open()) for address in addresses)
        self._waiting.extend(addresses)

    def renew(self) -> list[TaskAddress]:
        """The call goes on with other parameters. Returns what is out for too long, and will be handed out again."""
        out = [t for held in self._held.values() for t in held if self.wants(t)]
        self._call += 1
        again = [t.address for t in out if not self.wants(t) and not self._holders(t.address)]
        for address in again:
            self._wait_again(address)
        return again

    def staleness(self, ticket: Ticket) -> int:
        """How often the parameters were renewed since it was handed out."""
        return self._call - ticket.call

    @property
    def done(self) -> bool:
        """Every address of the call is accepted or given up."""
        return not self._open

    @property
    def groups(self) -> list[int]:
        """The groups that take part."""
        return list(self._held)

    def idle(self, group: int) -> bool:
        """Whether it holds nothing, and there is nothing to hand out."""
        return not self._waiting and self._held.get(group) == []

    def join(self, group: int) -> None:
        """A group takes part from now on."""
        self._held[group] = []

    def leave(self, group: int) -> list[TaskAddress]:
        """A group is lost. Returns the addresses that have to be computed again, and will be handed out first."""
        held = self._held.pop(group, [])
        self._since.pop(group, None)
        if held and self.wants(held[0]):
            self._open[held[0].address].losses += 1
        again = [t.address for t in held if self.wants(t) and not self._holders(t.address)]
        again = [address for address in again if address not in self._waiting]
        self._waiting.extendleft(reversed(again))
        return again

    def hand_out(self) -> list[Ticket]:
        """Give waiting addresses to groups that have room, the least busy first. The caller submits the tickets."""
        tickets = []
        kept: deque[TaskAddress] = deque()
        while self._waiting and any(len(held) < self._queue for held in self._held.values()):
            address = self._waiting.popleft()
            if address not in self._open:  # answered while it waited for a second group
                continue
            group = self._choose(address)
            if group is None:
                kept.append(address)
                continue
            self._issued += 1
            ticket = Ticket(self._issued, group, address, self._call)
            if not self._held[group]:
                self._since[group] = self._clock()
            self._held[group].append(ticket)
            tickets.append(ticket)
        self._waiting.extendleft(reversed(kept))
        return tickets

    def wants(self, ticket: Ticket) -> bool:
        """Whether a result for this ticket would be accepted: it is of this call, not too old, and the first."""
        oldest = max(self._begun, self._call - self._staleness)
        return ticket.call >= oldest and ticket.address in self._open

    def accept(self, ticket: Ticket) -> bool:
        """A sound result is there. False: it is late, a duplicate, or of other parameters, and must be dropped."""
        self._returned(ticket, timed=True)
        if not self.wants(ticket):
            return False
        del self._open[ticket.address]
        self._accepted += 1
        return True

    def damaged(self, ticket: Ticket) -> None:
        """The reply was damaged on its way: as good as lost, the group is not to blame."""
        self._returned(ticket, timed=True)
        if self.wants(ticket):
            self._open[ticket.address].losses += 1
            self._wait_again(ticket.address)

    def refuse(self, ticket: Ticket) -> bool:
        """The task has no usable result on this group. True: it is given up; False: it is tried elsewhere, or stale."""
        self._returned(ticket, timed=False)
        if not self.wants(ticket):
            return False
        state = self._open[ticket.address]
        state.failed_at.add(ticket.group)
        state.failures += 1
        if state.failures >= FAILURES:
            del self._open[ticket.address]
            return True
        self._wait_again(ticket.address)
        return False

    def losses(self, address: TaskAddress) -> int:
        """How often the group that computed this address was lost, or its reply damaged, in this call."""
        return self._open[address].losses if address in self._open else 0

    def deadline(self) -> float | None:
        """Seconds after which a task is a straggler: median + k · MAD of the finished; None before there are enough."""
        finished = self._seconds_of[self._kind]
        if len(finished) < ENOUGH:
            return None
        median = statistics.median(finished)
        spread = max(statistics.median(abs(seconds - median) for seconds in finished), SPREAD * median)
        return median + max(self._stragglers.deviations * spread, GRACE_S)

    def reissue_overdue(self) -> list[Ticket]:
        """Under policy "reissue": what late groups hold; others compute it as well, and the first result wins."""
        if self._stragglers.policy != "reissue":
            return []
        late = self._late_groups()
        found = [t for group in late for t in self._held[group] if self.wants(t) and not self._open[t.address].overdue]
        if len(late) == len(self._held):
            return []
        for ticket in found:
            self._open[ticket.address].overdue = True
            self._wait_again(ticket.address)
        return found

    def drop_overdue(self) -> list[Ticket]:
        """Under policy "drop": stragglers that are given up, as long as enough of the call is there without them."""
        if self._stragglers.policy != "drop" or self._accepted < self._enough:
            return []
        dropped = [t for group in self._late_groups() for t in self._held[group] if self.wants(t)]
        for ticket in dropped:
            del self._open[ticket.address]
        return dropped

    def busy_longer_than(self, seconds: float) -> list[int]:
        """Groups that have computed one task, stale or not, for more than this."""
        now = self._clock()
        return [group for group, held in self._held.items() if held and now - self._since[group] > seconds]

    def _late_groups(self) -> list[int]:
        """Groups whose task, stale or not, is past the deadline; what waits behind it is late as well."""
        deadline = self.deadline()
        return [] if deadline is None else self.busy_longer_than(deadline)

    def _choose(self, address: TaskAddress) -> int | None:
        """The least busy group with room that is not late, does not hold the address, and has not failed at it.

        If all have failed, one of them tries again. Under policy "wait" no group is late.
        """
        away = self._holders(address)
        if self._stragglers.policy != "wait":
            away.update(self._late_groups())
        possible = [group for group in self._held if group not in away]
        elsewhere = [group for group in possible if group not in self._open[address].failed_at]
        with_room = [group for group in elsewhere or possible if len(self._held[group]) < self._queue]
        return min(with_room, key=lambda group: (len(self._held[group]), group), default=None)

    def _holders(self, address: TaskAddress) -> set[int]:
        return {
            group
            for group, held in self._held.items()
            if any(t.address == address and self.wants(t) for t in held)
        }

    def _returned(self, ticket: Ticket, timed: bool) -> None:
        """The group no longer holds it."""
        held = self._held.get(ticket.group, [])
        if ticket not in held:  # of a group that was lost, or the second time
            return
        now = self._clock()
        if held[0] == ticket:
            if timed and ticket.call >= self._begun:
                self._seconds_of[self._kind].append(now - self._since[ticket.group])
            self._since[ticket.group] = now
        held.remove(ticket)

    def _wait_again(self, address: TaskAddress) -> None:
        if address not in self._waiting:
            self._waiting.appendleft(address)
