"""Training on worker groups of a Ray cluster: what it needs beside a pool of workers.

Gradients may be combined by shards elsewhere, outer steps may not wait for each other, and groups that wait make ahead
what they will be given next.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from metacl.config import RunConfig
from metacl.coordination.executor import Further, LeftOut, Notify
from metacl.coordination.flat import Flat
from metacl.coordination.gathering import Gathering, InProcess
from metacl.coordination.ray_parts import InParts, RayParts
from metacl.coordination.ray_pool import RayPool
from metacl.coordination.ray_shards import Sharded, Shards
from metacl.coordination.scheduler import Scheduler
from metacl.coordination.worker import Done, MakeAhead, Meta, PartedMeta, Work, Worker
from metacl.tasks import TaskAddress

R = TypeVar("R")


class RayExecutor(RayPool):
    """Training on worker groups."""

    def __init__(self, config: RunConfig, notify: Notify) -> None:
        self._config = config
        self._shards = RayParts(config) if config.parameters_in_parts else Shards(config)
        super().__init__(config, notify, Worker, Scheduler(config.workers.stragglers), self._shards)
        self._minimum_completion = config.outer.minimum_completion
        self._whole = np.empty(0, np.float32)  # used again every step: new memory is slow to touch
        self._foreseen: list[TaskAddress] = []
        self._next: list[TaskAddress] = []
        self._ahead: set[int] = set()

    def map(
        self,
        work: Work[R],
        addresses: Sequence[TaskAddress],
        meta: Meta,
        left_out: LeftOut | None = None,
        further: Further | None = None,
    ) -> Iterator[Done[R]]:
        """As `RayPool.map`; groups that have nothing to do make ahead what was foreseen."""
        self._next, self._foreseen, self._ahead = self._foreseen, [], set()
        yield from super().map(work, addresses, meta, left_out, further)

    def _after_turn(self, shared: Any) -> None:
        """After the last turn, too: they wait for the outer step."""
        self._make_ahead(self._next, self._ahead, shared)

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

    def _make_ahead(self, foreseen: Sequence[TaskAddress], ahead: set[int], shared: Any) -> None:
        """Have idle groups make what they will be given first, if all are idle by then; each group once a call.

        The answers are not waited for: an error is met again with the task itself.
        """
        for place, group in enumerate(sorted(self._fleet.ready)):
            if place < len(foreseen) and group not in ahead and self._scheduler.idle(group):
                ahead.add(group)
                self._fleet.ready[group].submit(MakeAhead(), foreseen[place], shared)

    def foresee(self, addresses: Sequence[TaskAddress]) -> None:
        """A group that has nothing to do in the next call makes ahead what it will probably get first after that."""
        self._foreseen = list(addresses)

    @property
    def parts(self) -> RayParts:
        """The processes that hold the parts of the meta-parameters, where they lie in parts."""
        assert isinstance(self._shards, RayParts)
        return self._shards

    def initial_parts(self) -> list[Any]:
        """See `metacl.coordination.meta_state.HoldsParts`."""
        return self._fleet.ready[min(self._fleet.ready)].initial()

    def gathering(self, meta: Meta) -> Gathering:
        """With the parts, or the shards, if there are several."""
        if isinstance(meta, PartedMeta):
            return InParts(self.parts)
        if not self._shards.actors:
            return InProcess(self._config.outer.aggregator)
        parameters, _ = self._broadcast(meta)
        if self._whole.shape != meta.shape:
            self._whole = np.empty_like(meta)
        return Sharded(self._shards, parameters.version, self._whole)
