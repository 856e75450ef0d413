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
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from metacl.config import RunConfig
from metacl.coordination.executor import Notify
from metacl.coordination.flat import Flat
from metacl.coordination.ray_cluster import connect
from metacl.coordination.ray_group import GroupRank
from metacl.coordination.worker import Done, Work
from metacl.errors import MetaclError, ResourceError
from metacl.tasks import TaskAddress

R = TypeVar("R")

QUEUE = 2
"""Tasks a group holds at a time: one it computes, one that waits."""


class RayExecutor:
    """Spreads work over worker groups on a Ray cluster."""

    def __init__(self, config: RunConfig, notify: Notify) -> None:
        self._config = config
        self._notify = notify
        self._placements: list[PlacementGroup] = []
        self._ranks: list[Any] = []
        self._owns_connection = False

    def start(self) -> None:
        """Connect, reserve the groups' places, start the ranks, load the model in each."""
        workers = self._config.workers
        self._owns_connection = connect(workers, self._notify)
        deadline = time.monotonic() + workers.start_timeout_s
        bundle = {"CPU": float(workers.threads)}
        if workers.gpus_per_group:
            bundle["GPU"] = float(workers.gpus_per_group)
        self._placements = [placement_group([bundle], strategy="STRICT_PACK") for _ in range(workers.groups)]
        self._wait([group.ready() for group in self._placements], deadline, "reserving places for the worker groups")
        for placement in self._placements:
            rank = (
                ray.remote(GroupRank)
                .options(
                    num_cpus=workers.threads,
                    num_gpus=workers.gpus_per_group,
                    scheduling_strategy=PlacementGroupSchedulingStrategy(placement),
                )
                .remote()
            )
            self._ranks.append(rank)
        places = self._wait([r.place.remote() for r in self._ranks], deadline, "starting the worker groups")
        tree = self._config.to_dict()
        ready = [
            rank.build.remote(tree, address, port) for rank, (address, port) in zip(self._ranks, places, strict=True)
        ]
        for line in self._wait(ready, deadline, "loading model and data in every group, starting DeepSpeed"):
            self._notify(line)

    def map(self, work: Work[R], addresses: Sequence[TaskAddress], meta: Flat) -> Iterator[Done[R]]:
        """Results as the groups finish them. Raises `ResourceError` if a group dies."""
        shared = ray.put(meta)
        waiting = deque(addresses)
        running: dict[Any, tuple[int, TaskAddress]] = {}
        load = [0] * len(self._ranks)
        try:
            while waiting or running:
                while waiting and min(load) < QUEUE:
                    group = load.index(min(load))
                    address = waiting.popleft()
                    running[self._ranks[group].run.remote(work, address, shared)] = (group, address)
                    load[group] += 1
                finished, _ = ray.wait(list(running), timeout=0.5)
                for reference in finished:
                    group, address = running.pop(reference)
                    load[group] -= 1
                    yield Done(address, self._get(reference, f"worker group {group} at {address}"))
        finally:
            for reference in running:  # an abandoned step: what has not begun is not worth beginning
                ray.cancel(reference, force=False)

    def close(self) -> None:
        """Stop the ranks, give the places back, leave Ray unless it was there before."""
        for rank in self._ranks:
            ray.kill(rank)
        for placement in self._placements:
            remove_placement_group(placement)
        self._ranks, self._placements = [], []
        if self._owns_connection:
            ray.shutdown()
            self._owns_connection = False

    def _wait(self, references: list[Any], deadline: float, doing: str) -> list[Any]:
        """All results, or a `ResourceError` at the deadline; says what is going on while it takes."""
        self._notify(doing)
        started = time.monotonic()
        pending = references
        while pending:
            _, pending = ray.wait(pending, num_returns=len(pending), timeout=10)
            if pending and time.monotonic() > deadline:
                raise ResourceError(
                    f"{doing}: {len(pending)} of {len(references)} not ready within workers.start_timeout_s = "
                    f"{self._config.workers.start_timeout_s:.0f} s. Other jobs may hold the cluster (see: ray status)."
                )
            if pending:
                self._notify(
                    f"{doing}: {len(references) - len(pending)}/{len(references)}, "
                    f"{time.monotonic() - started:.0f} s so far"
                )
        return [self._get(reference, doing) for reference in references]

    def _get(self, reference: Any, doing: str) -> Any:
        try:
            return ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, MetaclError):
                raise error.cause from None
            raise
        # Ray's errors of lost actors, nodes and objects have no common parent below RayError.
        except (RayError, GetTimeoutError) as error:
            raise ResourceError(
                f"{doing}: the worker was lost ({type(error).__name__}: {_essence(error)}). "
                f"Steps up to the last checkpoint are safe; the same command continues from there."
            ) from None


def _essence(error: Exception) -> str:
    """The last line that says something: Ray puts the cause at the end, below a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "no more is known"
