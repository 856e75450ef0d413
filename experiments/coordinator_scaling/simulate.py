"""The coordinator's own work, measured, with groups that are simulated: they take a task's time on a virtual clock.

Nothing sleeps. The scheduler, the checks, the sum in float64 and the optimizer are the real ones, on gradients of the
real size; only the time that the coordinator would have waited is skipped. What Ray adds is not in it (see real.py).
"""

from __future__ import annotations

import heapq
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from metacl.config import RunConfig, config_from_dict
from metacl.coordination.executor import LeftOut
from metacl.coordination.flat import Flat, FlatLayout, checksum
from metacl.coordination.outer import OuterOptimizer
from metacl.coordination.scheduler import Scheduler, Ticket
from metacl.coordination.step import compute_step
from metacl.coordination.worker import Done, MetaGradientWork, Parameters, TaskResult, Work
from metacl.reporting import QuietProgress
from metacl.tasks import TaskAddress

JITTER = 0.1
"""Tasks take their time ± 10 %, by address."""


class SimulatedGroups:
    """An executor whose groups answer on a clock that jumps to the next answer instead of waiting for it."""

    def __init__(self, config: RunConfig, groups: int, task_s: float, result: TaskResult) -> None:
        self.waited_s = 0.0
        self._task_s, self._result = task_s, result
        self._scheduler = Scheduler(config.workers.stragglers, clock=self.now)
        for group in range(groups):
            self._scheduler.join(group)
        self._free: dict[int, float] = defaultdict(float)

    def now(self) -> float:
        """The real time that passed, and all that was skipped."""
        return time.perf_counter() + self.waited_s

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
            work.check(self._result, meta)
            self._scheduler.accept(ticket)
            yield Done(ticket.address, self._result)

    def _seconds(self, address: TaskAddress) -> float:
        generator = np.random.default_rng([address.step, address.index])
        return self._task_s * (1.0 + JITTER * (2.0 * generator.random() - 1.0))


@dataclass(frozen=True)
class Cost:
    """Of one step: seconds on the virtual clock, of them the coordinator's own, and bytes of gradients received."""

    groups: int
    parameters: int
    tasks: int
    step_s: float
    coordinator_s: float
    gradient_bytes: int


def simulated_step(groups: int, parameters: int, tasks: int, task_s: float) -> Cost:
    """The second of two steps: in the first one memory is touched for the first time."""
    config = config_from_dict(
        {
            "name": "scaling",
            "learner": "text_classifier",
            "data": {"name": "labelled_text", "dataset": "oos"},
            "outer": {"tasks_per_step": tasks, "steps": 2},
            "workers": {"stragglers": {"policy": "wait"}},
        }
    )
    initial = {"adapter.weight": torch.zeros(parameters)}
    layout, outer = FlatLayout.of(initial), OuterOptimizer(config.outer, initial)
    gradient = np.random.default_rng(0).standard_normal(parameters, dtype=np.float32)
    result = TaskResult(gradient, checksum(gradient), 1.0, (1.0,))
    executor = SimulatedGroups(config, groups, task_s, result)
    for step in range(2):
        began, waited = executor.now(), executor.waited_s
        meta = layout.flatten(outer.meta)
        found = compute_step(config, step, meta, MetaGradientWork(), executor, QuietProgress())
        outer.step(layout.unflatten(found.gradient.astype(np.float32)), step)
        step_s, waited_s = executor.now() - began, executor.waited_s - waited
    return Cost(groups, parameters, tasks, step_s, step_s - waited_s, tasks * gradient.nbytes)
