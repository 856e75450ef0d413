"""The coordinator's own work, measured, with groups that are simulated: they take a task's time on a virtual clock.

Nothing sleeps. The scheduler, the checks, the sum in float64 and the optimizer are the real ones, on gradients of the
real size; only the time that the coordinator would have waited is skipped. With shards, the gradients and the work on
them are elsewhere (shard_work.py) and the coordinator gets what they have combined. What Ray's calls add is not in it
(ray_calls.py).
"""

from __future__ import annotations

import heapq
import pickle
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metacl.config import RunConfig, config_from_dict
from metacl.coordination.checkpoint import Checkpoint, save_checkpoint
from metacl.coordination.executor import LeftOut
from metacl.coordination.flat import Flat, FlatLayout, checksum, cuts
from metacl.coordination.gathering import Gathering, InProcess
from metacl.coordination.outer import OuterOptimizer
from metacl.coordination.ray_shards import Sharded, Shards
from metacl.coordination.scheduler import Scheduler, Ticket
from metacl.coordination.shards import Combined, Counted
from metacl.coordination.step import compute_step
from metacl.coordination.worker import Done, MetaGradientWork, Parameters, TaskResult, Work
from metacl.reporting import QuietProgress
from metacl.tasks import TaskAddress

JITTER = 0.1
"""Tasks take their time ± 10 %, by address."""

DISTINCT = 64_000_000
"""Numbers in all the gradients that are told apart: more than a cache holds, so that each is read from memory."""


class SimulatedGroups:
    """An executor whose groups answer on a clock that jumps to the next answer instead of waiting for it."""

    def __init__(self, config: RunConfig, groups: int, task_s: float, gradients: list[Flat]) -> None:
        self.waited_s = 0.0
        self._config, self._task_s = config, task_s
        self._combined: list[Combined | None] = []
        self._whole = np.empty_like(gradients[0])
        shards = config.workers.gradient_shards
        if shards == 1:
            self._results = [TaskResult(g, (checksum(g),), 1.0, (1.0,), norm=1.0) for g in gradients]
        else:
            self._results = [TaskResult(None, (), 1.0, (1.0,), norm=1.0)]
            parts = [(where.start, gradients[0][where]) for where in cuts(gradients[0].size, shards)]
            self._combined = [Combined(begin, numbers, checksum(numbers)) for begin, numbers in parts]
        self._scheduler = Scheduler(config.workers.stragglers, clock=self.now)
        for group in range(groups):
            self._scheduler.join(group)
        self._free: dict[int, float] = defaultdict(float)

    def now(self) -> float:
        """This process's CPU time, which other processes do not lengthen, and all the waiting that was skipped."""
        return time.process_time() + self.waited_s

    def start(self) -> None:
        """They are there."""

    def close(self) -> None:
        """Nothing to end."""

    def map(
        self, work: Work[Any], addresses: Sequence[TaskAddress], meta: Flat, left_out: LeftOut | None = None
    ) -> Iterator[Done[Any]]:
        """As the Ray executor does it, without Ray."""
        Parameters.of(meta)
        self._scheduler.begin(addresses)
        answers: list[tuple[float, int, Ticket]] = []
        while not self._scheduler.done:
            for ticket in self._scheduler.hand_out():
                begins = max(self.now(), self._free[ticket.group])
                self._free[ticket.group] = begins + self._seconds(ticket.address)
                heapq.heappush(answers, (self._free[ticket.group], ticket.number, ticket))
            there, _, ticket = heapq.heappop(answers)
            self.waited_s += max(0.0, there - self.now())
            result = self._results[ticket.address.index % len(self._results)]
            work.check(result, meta)
            self._scheduler.accept(ticket)
            yield Done(ticket.address, result)

    def foresee(self, addresses: Sequence[TaskAddress]) -> None:
        """They have no time to."""

    def gathering(self, meta: Flat) -> Gathering:
        """In this process, or from shards that are ready at once."""
        if not self._combined:
            return InProcess(self._config.outer.aggregator)
        return Sharded(ReadyShards(self._config, self._combined), "version", self._whole)

    def _seconds(self, address: TaskAddress) -> float:
        generator = np.random.default_rng([address.step, address.index])
        return self._task_s * (1.0 + JITTER * (2.0 * generator.random() - 1.0))


class ReadyShards(Shards):
    """Shards whose work is done elsewhere."""

    def __init__(self, config: RunConfig, combined: list[Combined | None]) -> None:
        super().__init__(config)
        self._combined = combined

    def begin(self, version: str) -> None:
        """At once."""

    def combine(self, portion: int, counted: Sequence[Counted]) -> bool:
        """At once; what is sent is made ready for sending."""
        return bool(pickle.dumps(counted))

    def result(self, portions: int) -> list[Combined | None]:
        """At once."""
        return self._combined


@dataclass(frozen=True)
class Cost:
    """Of one step: seconds on the virtual clock, of them the coordinator's own, and bytes of gradients it received.

    checkpoint_s, checkpoint_wall_s : to save, every so many steps: of work, and until it is on the disk.
    """

    groups: int
    shards: int
    parameters: int
    tasks: int
    step_s: float
    coordinator_s: float
    gradient_bytes: int
    checkpoint_s: float
    checkpoint_wall_s: float


def simulated_step(groups: int, parameters: int, tasks: int, task_s: float, shards: int = 1) -> Cost:
    """The last of some steps: in the first ones memory is touched for the first time."""
    config = config_from_dict(
        {
            "name": "scaling",
            "learner": "text_classifier",
            "data": {"name": "labelled_text", "dataset": "oos"},
            "outer": {"tasks_per_step": tasks, "steps": 2},
            "workers": {"gradient_shards": shards},
        }
    )
    initial = {"adapter.weight": torch.zeros(parameters)}
    layout, outer = FlatLayout.of(initial), OuterOptimizer(config.outer, initial)
    generator = np.random.default_rng(0)
    distinct = 1 if shards > 1 else max(2, DISTINCT // parameters)
    gradients = [generator.standard_normal(parameters, dtype=np.float32) for _ in range(min(distinct, tasks))]
    executor = SimulatedGroups(config, groups, task_s, gradients)
    few = config.model_copy(update={"outer": config.outer.model_copy(update={"tasks_per_step": min(tasks, 4)})})
    buffer = np.empty(parameters, np.float32)
    for step in range(3):
        began, waited = executor.now(), executor.waited_s
        meta = layout.flatten(outer.meta, buffer)
        portion = config if step == 2 else few
        found = compute_step(portion, step, meta, MetaGradientWork(), executor, QuietProgress())
        outer.step(layout.views(found.gradient), step)
        assert np.isfinite(outer.meta["adapter.weight"].detach().numpy()).all()
        step_s, waited_s = executor.now() - began, executor.waited_s - waited
    received = (1 if shards > 1 else tasks) * 4 * parameters
    return Cost(groups, shards, parameters, tasks, step_s, step_s - waited_s, received, *_seconds_to_save(outer))


def _seconds_to_save(outer: OuterOptimizer) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        began, wall = time.process_time(), time.perf_counter()
        save_checkpoint(Path(folder), Checkpoint(1, outer.meta, outer.state(), {}), keep=2)
        return time.process_time() - began, time.perf_counter() - wall
