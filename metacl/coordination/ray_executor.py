"""Worker groups as Ray actors. Work goes out as addresses, results come back as flat buffers.

Parameters are put into the object store once a call and read there without a copy. Each group has a short
queue, so that it never waits for the driver and a slow one does not hoard tasks.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from metacl.config import RunConfig
from metacl.coordination.executor import Notify, out_of_memory
from metacl.coordination.flat import Flat
from metacl.coordination.interrupt import held
from metacl.coordination.ray_cluster import connect
from metacl.coordination.ray_group import WorkerGroup
from metacl.coordination.worker import Done, Work
from metacl.errors import MetaclError, ResourceError
from metacl.tasks import TaskAddress

R = TypeVar("R")

POLL_S = 0.5
"""How long a stop signal may have to wait for the driver to look up."""

SAY_EVERY_S = 10.0
"""While something slow starts, a line at most this often."""

QUEUE = 2
"""Tasks a group holds at a time: one it computes, one that waits."""


class RayExecutor:
    """Spreads work over worker groups on a Ray cluster."""

    def __init__(self, config: RunConfig, notify: Notify) -> None:
        self._config = config
        self._notify = notify
        self._groups: list[WorkerGroup] = []
        self._owns_connection = False

    def start(self) -> None:
        """Connect, reserve the groups' places, start the ranks, load the model in each."""
        workers = self._config.workers
        self._owns_connection = connect(workers, self._notify)
        deadline = time.monotonic() + workers.start_timeout_s
        self._groups = [WorkerGroup(self._config, index) for index in range(workers.groups)]
        self._wait([group.reserved() for group in self._groups], deadline, "reserving places for the worker groups")
        ready = [reference for group in self._groups for reference in group.start()]
        for line in self._wait(ready, deadline, "loading model and data in every group, starting DeepSpeed"):
            self._notify(line)

    def map(self, work: Work[R], addresses: Sequence[TaskAddress], meta: Flat) -> Iterator[Done[R]]:
        """Results as the groups finish them. Raises `ResourceError` if a group dies."""
        with held():
            shared = ray.put(meta)
        waiting = deque(addresses)
        running: dict[Any, tuple[int, TaskAddress]] = {}
        load = [0] * len(self._groups)
        try:
            while waiting or running:
                with held():
                    while waiting and min(load) < QUEUE:
                        group = load.index(min(load))
                        address = waiting.popleft()
                        running[self._groups[group].submit(work, address, shared)] = (group, address)
                        load[group] += 1
                    finished, _ = ray.wait(list(running), timeout=POLL_S)
                for reference in finished:
                    group, address = running.pop(reference)
                    load[group] -= 1
                    with held():
                        result = self._get(reference, f"worker group {group} at {address}")
                    yield Done(address, result)
        finally:
            for reference, (group, _) in running.items():  # an abandoned step: drop what has not begun
                self._groups[group].cancel(reference)

    def close(self) -> None:
        """Stop the ranks, give the places back, leave Ray unless it was there before."""
        try:
            for group in self._groups:
                group.kill()
        except (RayError, ConnectionError, RuntimeError, ValueError) as error:  # the head is gone, and all with it
            self._notify(f"the cluster could not be tidied up: {error}")
        finally:
            self._groups = []
            if self._owns_connection:
                ray.shutdown()
                self._owns_connection = False

    def _wait(self, references: list[Any], deadline: float, doing: str) -> list[Any]:
        """All results, the first error as soon as there is one, or a `ResourceError` at the deadline."""
        self._notify(doing)
        started = said = time.monotonic()
        results: dict[Any, Any] = {}
        while len(results) < len(references):
            pending = [reference for reference in references if reference not in results]
            finished, _ = ray.wait(pending, timeout=POLL_S)
            results.update({reference: self._get(reference, doing) for reference in finished})
            now = time.monotonic()
            missing = len(references) - len(results)
            if missing and now > deadline:
                raise ResourceError(
                    f"{doing}: {missing} of {len(references)} not ready within workers.start_timeout_s = "
                    f"{self._config.workers.start_timeout_s:.0f} s. Other jobs may hold the cluster (see: ray status)."
                )
            if missing and now - said > SAY_EVERY_S:
                said = now
                self._notify(f"{doing}: {len(results)}/{len(references)}, {now - started:.0f} s so far")
        return [results[reference] for reference in references]

    def _get(self, reference: Any, doing: str) -> Any:
        try:
            return ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, MetaclError):
                raise error.cause from None
            if isinstance(error.cause, (MemoryError, torch.OutOfMemoryError)):
                raise out_of_memory(doing, error.cause) from None
            raise
        # Ray's errors of lost actors, nodes and objects have no common parent below RayError.
        except RayError as error:
            raise ResourceError(
                f"{doing}: the worker was lost ({type(error).__name__}: {_essence(error)}). "
                f"Steps up to the last checkpoint are safe; the same command continues from there."
            ) from None


def _essence(error: Exception) -> str:
    """The last line that says something: Ray puts the cause at the end, below a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "no more is known"
