"""The worker groups of a run: brought up, counted, started again when lost, and growing again when there is room.

A group that waits for a place waits as long as it takes; that is all that growing again needs. Nothing here knows of
tasks.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import ray
from ray.exceptions import RayError

from metacl.coordination.executor import Notify
from metacl.coordination.ray_cluster import connect
from metacl.coordination.ray_errors import error_of_ours, essence, is_loss
from metacl.coordination.ray_group import WorkerGroup
from metacl.coordination.ray_shards import Shards
from metacl.coordination.worker import Job, WorkerKind
from metacl.errors import ResourceError
from metacl.plugins import packable

POLL_S = 0.5
"""How long a stop signal may have to wait for the driver to look up."""

SAY_EVERY_S = 10.0
"""While something slow starts, a line at most this often."""


class Fleet:
    """Groups by number, 0 … groups − 1; a group that is started again keeps its number.

    Parameters
    ----------
    kind : WorkerKind
        What each rank makes of the config.
    shards : Shards
        Those who combine what the groups compute; None if that is done here.

    Attributes
    ----------
    ready : dict
        The groups that can be given work.
    """

    def __init__(self, config: Job, notify: Notify, kind: WorkerKind, shards: Shards | None = None) -> None:
        self._config = config
        self._kind, self._shards = kind, shards
        self._workers = config.workers
        self._notify = notify
        self._coming: dict[int, WorkerGroup] = {}
        self._idle_losses: Counter[int] = Counter()  # since the group last finished a task
        self._arrived: set[Any] = set()
        self._too_few_since: float | None = None
        self._owns_connection = False
        self._compile: bool | None = None  # whether the groups can
        self.ready: dict[int, WorkerGroup] = {}

    def start(self) -> None:
        """Connect, and bring up all groups; returns when enough of them are ready.

        Raises `ResourceError` if they are not within ``workers.start_timeout_s``.
        """
        self._owns_connection = connect(self._workers, self._notify, packable(self._config.plugins))
        if self._shards is not None:
            self._shards.start()
        for number in range(self._workers.groups):
            self._coming[number] = self._new_group(number)
        self._too_few_since = said = time.monotonic()
        while len(self.ready) < self._workers.groups_to_start:
            finished, _ = ray.wait(self.awaited, timeout=POLL_S) if self.awaited else ([], [])
            self.advance(finished)
            self.require(self._workers.groups_to_start)
            if time.monotonic() - said > SAY_EVERY_S:
                said = time.monotonic()
                self._notify(self._standing())
        if self._coming:
            self._notify(f"starting with {len(self.ready)} of {self._workers.groups} worker groups; others join later")

    @property
    def awaited(self) -> list[Any]:
        """References that groups which are coming up wait for."""
        return [r for group in self._coming.values() for r in group.pending if r not in self._arrived]

    def advance(self, finished: Iterable[Any]) -> None:
        """Some of `awaited` are there: groups that have all they waited for go on, or become ready."""
        for reference in finished:
            # Looked up each time: a group that is lost meanwhile is another one under the same number.
            owner = next((number for number, group in self._coming.items() if reference in group.pending), None)
            if owner is not None:
                self._arrived.add(reference)
                self._advance_group(owner, reference)

    def _advance_group(self, number: int, reference: Any) -> None:
        group = self._coming[number]
        try:
            ray.get(reference)  # at once: the other ranks may wait for one that failed
            if not self._arrived.issuperset(group.pending):
                return
            self._arrived.difference_update(group.pending)
            line = group.advance()
        except RayError as error:
            if not is_loss(error):
                raise error_of_ours(error, f"worker group {number}, {group.doing}", self._config.less_memory) from None
            self.lost(number, essence(error))
            return
        if line is not None:
            self._require_alike(number, group)
            self.ready[number] = self._coming.pop(number)
            self._notify(f"worker group {number}: {line}")

    def _require_alike(self, number: int, group: WorkerGroup) -> None:
        """Compiled and uncompiled code round differently: then bits would depend on who computed what."""
        if self._compile is None:
            self._compile = group.compiles
        if self._config.compiles and group.compiles != self._compile:
            has = "has a C++ compiler, and the groups before it have none" if group.compiles else "has no C++ compiler"
            raise ResourceError(
                f"estimator.compile: the machine of worker group {number} {has}, so its results would differ from the "
                f"others' in their last bits. Install g++ on all machines, or set estimator.compile=false."
            )

    def worked(self, number: int) -> None:
        """The group finished a task: it is worth starting again should it be lost."""
        del self._idle_losses[number]

    def lost(self, number: int, why: str) -> None:
        """The group is gone or must go: end it, and start it again unless that was in vain too often."""
        group = self.ready.pop(number, None) or self._coming.pop(number)
        self._arrived.difference_update(group.pending)
        group.kill()
        self._idle_losses[number] += 1
        times, limit = self._idle_losses[number], self._workers.respawns
        if times > limit:
            what = f"lost {times} times without finishing a task, not started again (workers.respawns = {limit})"
        else:
            what = f"starting it again ({times} of {limit} until it finishes a task)"
            self._coming[number] = self._new_group(number)
        self._notify(f"worker group {number} is lost ({why}); {what}; {len(self.ready)} left")

    def require(self, wanted: int) -> None:
        """Raise `ResourceError` if fewer groups are ready and they cannot come, or have not come in time."""
        if len(self.ready) >= wanted:
            self._too_few_since = None
            return
        now = time.monotonic()
        if self._too_few_since is None:
            self._too_few_since = now
        hopeless = len(self.ready) + len(self._coming) < wanted
        if hopeless or now - self._too_few_since > self._workers.start_timeout_s:
            limit = "" if hopeless else f" within workers.start_timeout_s = {self._workers.start_timeout_s:.0f} s"
            raise ResourceError(
                f"{self._standing()}; {wanted} needed{limit}. Other jobs may hold the cluster (see: ray status), or "
                f"its nodes are gone. The same command continues from the last finished step."
            )

    def close(self) -> None:
        """End all groups, give their places back, leave Ray unless it was there before."""
        for group in (*self.ready.values(), *self._coming.values()):
            try:
                group.kill()
            except (RayError, ConnectionError, RuntimeError, ValueError) as error:  # the head is gone, and all with it
                self._notify(f"a worker group could not be tidied up: {error}")
        self.ready, self._coming = {}, {}
        if ray.is_initialized() and self._shards is not None:
            self._shards.close()
        if self._owns_connection:
            ray.shutdown()
            self._owns_connection = False

    def _new_group(self, number: int) -> WorkerGroup:
        actors = [] if self._shards is None else self._shards.actors
        return WorkerGroup(self._config, self._kind, number, actors)

    def _standing(self) -> str:
        coming = "".join(
            f", {count} {doing}" for doing, count in Counter(group.doing for group in self._coming.values()).items()
        )
        return f"worker groups: {len(self.ready)} of {self._workers.groups} ready{coming}"
