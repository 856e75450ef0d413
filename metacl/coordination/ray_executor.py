"""Work on worker groups of a Ray cluster: out as addresses, back as flat buffers, whatever happens to the groups.

Parameters are put into the object store once a call and read there without a copy. What to hand out, and what of the
answers counts, is the scheduler's business; which groups there are, the fleet's; this file is between them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError, TaskCancelledError

from metacl.config import RunConfig
from metacl.coordination.executor import LeftOut, Notify, give_up
from metacl.coordination.flat import Flat
from metacl.coordination.gathering import Gathering, InProcess
from metacl.coordination.interrupt import held
from metacl.coordination.ray_errors import error_of_ours, essence, is_loss
from metacl.coordination.ray_fleet import POLL_S, Fleet
from metacl.coordination.ray_parts import InParts, RayParts
from metacl.coordination.ray_shards import Sharded
from metacl.coordination.scheduler import Scheduler, Ticket
from metacl.coordination.worker import (
    Done,
    MakeAhead,
    Meta,
    Parameters,
    PartedMeta,
    Reply,
    ReplyDamaged,
    TaskFailed,
    Work,
)
from metacl.errors import ResourceError
from metacl.tasks import TaskAddress

R = TypeVar("R")

LOSSES = 3
"""A task whose groups are lost this often, one after the other, is what kills them: the run stops and names it."""


class _Out(NamedTuple):
    """What a group holds, and the version of the parameters that went with it."""

    ticket: Ticket
    version: str


class RayExecutor:
    """Spreads work over worker groups; loses none of it."""

    def __init__(self, config: RunConfig, notify: Notify) -> None:
        self._config = config
        self._notify = notify
        self._fleet = Fleet(config, notify)
        self._scheduler = Scheduler(config.workers.stragglers)
        self.waited_s = 0.0
        self._whole = np.empty(0, np.float32)  # used again every step: new memory is slow to touch
        self._foreseen: list[TaskAddress] = []
        self._sent: tuple[Parameters, Any] | None = None
        self._running: dict[Any, _Out] = {}  # of earlier calls too: a straggler keeps its group busy

    def start(self) -> None:
        """Connect, reserve the groups' places, start the ranks, load the model in each."""
        self._fleet.start()

    def map(
        self, work: Work[R], addresses: Sequence[TaskAddress], meta: Meta, left_out: LeftOut | None = None
    ) -> Iterator[Done[R]]:
        """Results as groups finish them. Raises `ResourceError` if too few groups are left, or a task kills them."""
        parameters, shared = self._broadcast(meta)
        enough = 1.0 if left_out is None else self._config.outer.minimum_completion
        self._scheduler.begin(addresses, enough, work.kind)
        foreseen, self._foreseen = self._foreseen, []
        ahead: set[int] = set()
        try:
            while not self._scheduler.done:
                yield from self._turn(work, parameters, shared, left_out)
                with held():  # after the last turn, too: they wait for the outer step
                    self._make_ahead(foreseen, ahead, shared)
        finally:
            self._cancel_the_rest()

    def stream(
        self,
        work: Work[R],
        addresses: Iterator[TaskAddress],
        meta: Callable[[], Flat],
        staleness: int,
        left_out: LeftOut,
    ) -> Generator[Done[R], None, None]:
        """See `metacl.coordination.asynchronous.Streaming`."""
        parameters, shared = self._broadcast(meta())
        self._scheduler.begin([], 1.0, work.kind, staleness)
        try:
            while True:
                self._join()
                self._scheduler.extend(addresses)
                for done in self._turn(work, parameters, shared, left_out):
                    yield done
                    if meta() is parameters.flat:
                        continue
                    parameters, shared = self._broadcast(meta())  # before the turn's next answer is looked at
                    again = self._scheduler.renew()
                    if again:
                        self._notify(f"computing {len(again)} task(s) again, at newer parameters")
        finally:
            self._cancel_the_rest()

    def _turn(
        self, work: Work[R], parameters: Parameters, shared: Any, left_out: LeftOut | None
    ) -> Iterator[Done[R]]:
        """Give groups what to do, wait for answers, look at them."""
        with held():
            self._hand_out(work, parameters, shared)
            finished = self._wait()
        for reference in finished:
            with held():
                done = self._take(reference, work, parameters, left_out)
            if done is not None:
                yield done
        with held():
            self._watch(left_out)

    def _make_ahead(self, foreseen: Sequence[TaskAddress], ahead: set[int], shared: Any) -> None:
        """Have idle groups make what they will be given first, if all are idle by then; each group once a call.

        The answers are not waited for: an error is met again with the task itself.
        """
        for place, group in enumerate(sorted(self._fleet.ready)):
            if place < len(foreseen) and group not in ahead and self._scheduler.idle(group):
                ahead.add(group)
                self._fleet.ready[group].submit(MakeAhead(), foreseen[place], shared)

    def _cancel_the_rest(self) -> None:
        """What has not begun is not worth beginning."""
        for reference, out in self._running.items():
            if out.ticket.group in self._fleet.ready:
                self._fleet.ready[out.ticket.group].cancel(reference)

    def foresee(self, addresses: Sequence[TaskAddress]) -> None:
        """A group that has nothing to do in the next call makes ahead what it will probably get first after that."""
        self._foreseen = list(addresses)

    @property
    def parts(self) -> RayParts:
        """The processes that hold the parts of the meta-parameters, where they lie in parts."""
        assert isinstance(self._fleet.shards, RayParts)
        return self._fleet.shards

    def initial_parts(self) -> list[Any]:
        """See `metacl.coordination.meta_state.HoldsParts`."""
        return self._fleet.ready[min(self._fleet.ready)].initial()

    def gathering(self, meta: Meta) -> Gathering:
        """With the parts, or the shards, if there are several."""
        if isinstance(meta, PartedMeta):
            return InParts(self.parts)
        if not self._fleet.shards.actors:
            return InProcess(self._config.outer.aggregator)
        parameters, _ = self._broadcast(meta)
        if self._whole.shape != meta.shape:
            self._whole = np.empty_like(meta)
        return Sharded(self._fleet.shards, parameters.version, self._whole)

    def close(self) -> None:
        """Stop the groups, give the places back, leave Ray unless it was there before."""
        self._running, self._sent = {}, None
        self._fleet.close()

    def _broadcast(self, meta: Meta) -> tuple[Parameters, Any]:
        """The parameters and the reference that workers get: the same for all calls of a step."""
        if isinstance(meta, PartedMeta):
            return Parameters(np.zeros(0, np.float32), meta.version), meta  # none of them are here
        if self._sent is None or self._sent[0].flat is not meta:
            parameters = Parameters.of(meta)
            with held():
                self._sent = parameters, ray.put(parameters)
        return self._sent

    def _join(self) -> None:
        for number in self._fleet.ready:
            if number not in self._scheduler.groups:
                self._scheduler.join(number)

    def _hand_out(self, work: Work[Any], parameters: Parameters, shared: Any) -> None:
        self._join()
        for ticket in self._scheduler.hand_out():
            sent = work.handed_out(ticket.address)
            reference = self._fleet.ready[ticket.group].submit(sent, ticket.address, shared)
            self._running[reference] = _Out(ticket, parameters.version)

    def _wait(self) -> list[Any]:
        """References to replies that are there; groups that are coming up are helped on meanwhile."""
        awaited = self._fleet.awaited
        everything = [*self._running, *awaited]
        if not everything:
            return []
        began = time.perf_counter()
        finished, rest = ray.wait(everything, num_returns=1, timeout=POLL_S)
        if finished and rest:  # and what else is there by now: a turn costs the same for all of it
            finished += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        self.waited_s += time.perf_counter() - began
        self._fleet.advance([reference for reference in finished if reference not in self._running])
        return [reference for reference in finished if reference in self._running]

    def _take(
        self, reference: Any, work: Work[R], parameters: Parameters, left_out: LeftOut | None
    ) -> Done[R] | None:
        """The result, if it is sound and the first for its address."""
        out = self._running.pop(reference, None)
        if out is None:  # its group was lost a moment ago, with another reply
            return None
        ticket = out.ticket
        try:
            reply: Reply[R] = ray.get(reference)
            if not self._scheduler.wants(ticket):  # late, a duplicate, or for parameters that are no longer
                self._scheduler.accept(ticket)
                return None
            if reply.version != out.version:
                raise ReplyDamaged("it is for other parameters than were sent")
            work.check(reply.result, parameters.flat)
        except TaskCancelledError:
            self._scheduler.damaged(ticket)
        except RayError as error:
            if is_loss(error):
                self._lose(ticket.group, essence(error))
            elif isinstance(error, RayTaskError) and isinstance(error.cause, (TaskFailed, ReplyDamaged)):
                self._refuse(ticket, error.cause, left_out)
            else:
                raise error_of_ours(error, f"worker group {ticket.group} at {ticket.address}") from None
        except (TaskFailed, ReplyDamaged) as error:
            self._refuse(ticket, error, left_out)
        else:
            self._scheduler.accept(ticket)
            self._fleet.worked(ticket.group)
            return Done(ticket.address, reply.result, self._scheduler.staleness(ticket))
        return None

    def _refuse(self, ticket: Ticket, error: TaskFailed | ReplyDamaged, left_out: LeftOut | None) -> None:
        if isinstance(error, ReplyDamaged):
            self._scheduler.damaged(ticket)
            self._notify(f"task {ticket.address} on worker group {ticket.group}: {error}; asking again")
            self._stop_if_poisonous(ticket.address, str(error))
        elif self._scheduler.refuse(ticket):
            give_up(ticket.address, error, left_out)
        elif self._scheduler.wants(ticket):
            self._notify(f"task {ticket.address} on worker group {ticket.group}: {error}; trying once more, elsewhere")

    def _lose(self, group: int, why: str) -> None:
        """A group is dead, or hangs: its tasks go to others."""
        computed = [out.ticket.address for out in self._running.values() if out.ticket.group == group]
        self._running = {reference: out for reference, out in self._running.items() if out.ticket.group != group}
        again = self._scheduler.leave(group)
        self._fleet.lost(group, why)
        if again:
            self._notify(f"reissuing {len(again)} task(s): {', '.join(map(str, again))}")
        for address in {*again, *computed}:
            self._stop_if_poisonous(address, why)

    def _stop_if_poisonous(self, address: TaskAddress, why: str) -> None:
        if self._scheduler.losses(address) >= LOSSES:
            raise ResourceError(
                f"task {address}: {LOSSES} worker groups were lost at it or sent a damaged reply, one after the other "
                f"(at last: {why}). If memory is short, lower episodes.ways, episodes.shots or episodes.queries. "
                f"The same command continues from the last finished step."
            )

    def _watch(self, left_out: LeftOut | None) -> None:
        """Look after what takes too long, and whether enough groups are left."""
        limit = self._config.workers.task_timeout_s
        for group in self._scheduler.busy_longer_than(limit):
            self._lose(group, f"it has computed one task for more than workers.task_timeout_s = {limit:g} s")
        for ticket in self._scheduler.reissue_overdue():
            self._notify(f"task {ticket.address} is late on worker group {ticket.group}; another computes it as well")
        for ticket in self._scheduler.drop_overdue():
            give_up(ticket.address, TaskFailed(f"dropped as a straggler of worker group {ticket.group}"), left_out)
        if not self._scheduler.done:
            self._fleet.require(self._config.workers.groups_to_go_on)
