"""Work on worker groups of a Ray cluster: out as addresses, back as flat buffers, whatever happens to the groups.

Parameters are put into the object store once a call and read there without a copy. What to hand out, and what of the
answers counts, is the scheduler's business; which groups there are, the fleet's; this file is between them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError, TaskCancelledError

from metacl.coordination.executor import Further, LeftOut, Notify, give_up
from metacl.coordination.interrupt import held
from metacl.coordination.ray_errors import error_of_ours, essence, is_loss
from metacl.coordination.ray_fleet import POLL_S, Fleet
from metacl.coordination.ray_shards import Shards
from metacl.coordination.scheduler import Scheduler, Ticket
from metacl.coordination.worker import (
    Done,
    Job,
    Meta,
    Parameters,
    PartedMeta,
    Reply,
    ReplyDamaged,
    TaskFailed,
    Work,
    WorkerKind,
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


class RayPool:
    """Spreads work over worker groups; loses none of it.

    Parameters
    ----------
    kind : WorkerKind
        What computes it.
    scheduler : Scheduler
        A new one; with the run's way to deal with stragglers.
    shards : Shards
        See `Fleet`.
    """

    def __init__(
        self, config: Job, notify: Notify, kind: WorkerKind, scheduler: Scheduler, shards: Shards | None = None
    ) -> None:
        self._job = config
        self._notify = notify
        self._fleet = Fleet(config, notify, kind, shards)
        self._scheduler = scheduler
        self._minimum_completion = 1.0
        self.waited_s = 0.0
        self._sent: tuple[Parameters, Any] | None = None
        self._running: dict[Any, _Out] = {}  # of earlier calls too: a straggler keeps its group busy

    def start(self) -> None:
        """Connect, reserve the groups' places, start the ranks, load the model in each."""
        self._fleet.start()

    def map(
        self,
        work: Work[R],
        addresses: Sequence[TaskAddress],
        meta: Meta,
        left_out: LeftOut | None = None,
        further: Further | None = None,
    ) -> Iterator[Done[R]]:
        """Results as groups finish them. Raises `ResourceError` if too few groups are left, or a task kills them."""
        parameters, shared = self._broadcast(meta)
        enough = 1.0 if left_out is None else self._minimum_completion
        self._scheduler.begin(addresses, enough, work.kind)
        try:
            while not self._scheduler.done:
                for done in self._turn(work, parameters, shared, left_out):
                    yield done
                    if further is not None:
                        self._scheduler.add(further())
                with held():
                    self._after_turn(shared)
        finally:
            self._cancel_the_rest()

    def _after_turn(self, shared: Any) -> None:
        """Something for groups that wait. Nothing here."""

    def _turn(self, work: Work[R], parameters: Parameters, shared: Any, left_out: LeftOut | None) -> Iterator[Done[R]]:
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

    def _cancel_the_rest(self) -> None:
        """What has not begun is not worth beginning."""
        for reference, out in self._running.items():
            if out.ticket.group in self._fleet.ready:
                self._fleet.ready[out.ticket.group].cancel(reference)

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

    def _take(self, reference: Any, work: Work[R], parameters: Parameters, left_out: LeftOut | None) -> Done[R] | None:
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
                doing = f"worker group {ticket.group} at {ticket.address}"
                raise error_of_ours(error, doing, self._job.less_memory) from None
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
                f"(at last: {why}). If memory is short: {self._job.less_memory} The same command continues from the "
                f"last finished step."
            )

    def _watch(self, left_out: LeftOut | None) -> None:
        """Look after what takes too long, and whether enough groups are left."""
        limit = self._job.workers.task_timeout_s
        for group in self._scheduler.busy_longer_than(limit):
            self._lose(group, f"it has computed one task for more than workers.task_timeout_s = {limit:g} s")
        for ticket in self._scheduler.reissue_overdue():
            self._notify(f"task {ticket.address} is late on worker group {ticket.group}; another computes it as well")
        for ticket in self._scheduler.drop_overdue():
            give_up(ticket.address, TaskFailed(f"dropped as a straggler of worker group {ticket.group}"), left_out)
        if not self._scheduler.done:
            self._fleet.require(self._job.workers.groups_to_go_on)
