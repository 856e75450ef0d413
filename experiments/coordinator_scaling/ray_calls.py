"""What Ray's calls cost the coordinator: its process's CPU time a task and a shard, on real groups and shards.

The executor, the ranks' message handling and the shards are the real ones; only the tasks are not computed: a rank
answers with the same small gradient each time, cut and sent as any other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from shares import SIZES

from metacl.config import RunConfig, config_from_dict
from metacl.coordination.flat import Flat
from metacl.coordination.ray_executor import RayExecutor
from metacl.coordination.ray_group import GroupRank
from metacl.coordination.ray_shards import Shards
from metacl.coordination.scheduler import QUEUE, Scheduler
from metacl.coordination.step import compute_step
from metacl.coordination.worker import MetaGradientWork, Parameters, TaskResult, Work, Worker, checksums
from metacl.reporting import QuietProgress
from metacl.tasks import TaskAddress

GROUPS = 4
IN_FLIGHT = 64 * QUEUE
"""As with 64 groups: the executor waits for so many answers at a time."""
SHARDS = (2, 8)
TASKS = (64, 256)
SIZE = 40_000
"""Small gradients: what the coordinator does with large ones is measured without Ray (see simulate.py)."""


@dataclass(frozen=True)
class NoWork(MetaGradientWork):
    """A gradient of ones for every task, after a few milliseconds."""

    shards: int = 1

    def __call__(self, worker: Worker, address: TaskAddress, meta: Flat) -> TaskResult:
        """The same for all."""
        time.sleep(0.01)
        gradient = np.ones(meta.size, np.float32)
        return TaskResult(gradient, checksums(gradient, self.shards), 1.0, (1.0,), norm=1.0)


class NoWorker:
    """Makes nothing ahead."""

    def make_ahead(self, address: TaskAddress) -> None:
        """At once."""


class EmptyRank(GroupRank):
    """A rank without a model."""

    def prepare(self, shards: list[Any]) -> None:
        """Instead of `build`."""
        self._shards = shards
        self.worker: Any = NoWorker()


class Group:
    """A group of one such rank, as the executor sees it."""

    def __init__(self) -> None:
        self.rank = ray.remote(EmptyRank).options(num_cpus=0).remote()

    def submit(self, work: Work[Any], address: TaskAddress, parameters: Any) -> Any:
        """As `WorkerGroup`."""
        return self.rank.run.remote(work, address, parameters)

    def cancel(self, reference: Any) -> None:
        """Never."""


class Groups:
    """A fleet that is there and stays there."""

    awaited: tuple[Any, ...] = ()

    def __init__(self, config: RunConfig) -> None:
        self.shards = Shards(config)
        self.shards.start()
        self._all_shards = self.shards.actors
        self.ready = {number: Group() for number in range(GROUPS)}

    def use(self, shards: int) -> None:
        """The first so many."""
        self.shards.actors = self._all_shards[:shards]
        ray.get([group.rank.prepare.remote(self.shards.actors) for group in self.ready.values()])

    def advance(self, finished: Iterable[Any]) -> None:
        """Nothing to wait for."""

    def worked(self, number: int) -> None:
        """Fine."""

    def require(self, wanted: int) -> None:
        """They are there."""


def ray_calls() -> dict[str, Any]:
    """CPU seconds of this process for steps of few and many tasks, with few and many shards; what one more costs."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        groups = Groups(_config(TASKS[0], max(SHARDS)))
        found = {shards: {tasks: _step(groups, shards, tasks) for tasks in TASKS} for shards in SHARDS}
        put_s = {str(size): _seconds_to_put(size) for size in SIZES}
    finally:
        ray.shutdown()
    a_task = [(cpu[TASKS[1]] - cpu[TASKS[0]]) / (TASKS[1] - TASKS[0]) for cpu in found.values()]
    few, many = (found[shards][TASKS[0]] for shards in SHARDS)
    return {
        "groups": GROUPS,
        "cpu_s": {f"{shards} shards, {tasks} tasks": s for shards, c in found.items() for tasks, s in c.items()},
        "a_task_s": sum(a_task) / len(a_task),
        "put_s": put_s,
        "a_shard_s": max(0.0, (many - few) / (SHARDS[1] - SHARDS[0])),
    }


def _seconds_to_put(size: int) -> float:
    """The parameters into the object store; the median of five, each in the place of the one before."""
    parameters = Parameters(np.zeros(size, np.float32), "version")
    spent = []
    for _ in range(6):
        began = time.perf_counter()
        reference = ray.put(parameters)
        spent.append(time.perf_counter() - began)
        del reference
    return sorted(spent[1:])[2]


def _config(tasks: int, shards: int) -> RunConfig:
    return config_from_dict(
        {
            "name": "calls",
            "learner": "text_classifier",
            "data": {"name": "labelled_text", "dataset": "oos"},
            "outer": {"tasks_per_step": tasks},
            "workers": {"gradient_shards": shards},
        }
    )


def _step(groups: Groups, shards: int, tasks: int) -> float:
    """The median CPU seconds of five steps after a first one."""
    config = _config(tasks, shards)
    groups.use(shards)
    executor = RayExecutor(config, lambda note: None)
    executor._fleet = groups  # type: ignore[assignment]
    executor._scheduler = Scheduler(config.workers.stragglers, queue=IN_FLIGHT // GROUPS)
    spent = []
    for step in range(6):
        meta = np.full(SIZE, step, np.float32)
        began = time.process_time()
        compute_step(config, step, meta, NoWork(shards), executor, QuietProgress())
        spent.append(time.process_time() - began)
    return sorted(spent[1:])[2]
