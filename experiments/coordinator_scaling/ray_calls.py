"""What Ray's calls cost the coordinator: its process's CPU time, of all its threads, a task and a shard.

The executor, the scheduler and the shards' handles are the real ones and talk to real actors; these only answer
(stand_ins.py).
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import ray
from shares import SIZES
from stand_ins import Rank, Shard

from metacl.config import RunConfig, config_from_dict
from metacl.coordination.flat import checksum, cuts
from metacl.coordination.ray_executor import RayExecutor
from metacl.coordination.ray_shards import Shards
from metacl.coordination.scheduler import QUEUE, Scheduler
from metacl.coordination.shards import Combined, Counted
from metacl.coordination.step import compute_step
from metacl.coordination.worker import MetaGradientWork, Parameters, Reply, TaskResult, Work
from metacl.reporting import QuietProgress
from metacl.tasks import TaskAddress

GROUPS = 4
IN_FLIGHT = 64 * QUEUE
"""As with 64 groups: the executor waits for so many answers at a time."""
SHARDS = (2, 8)
TASKS = (64, 256)
STEPS = 5
ROUNDS = 41
SIZE = 40_000
"""Small gradients: what the coordinator does with large ones is measured without Ray (see simulate.py)."""


class Group:
    """A group as the executor sees it, of one stand-in."""

    def __init__(self) -> None:
        self.rank = ray.remote(Rank).options(num_cpus=0).remote()
        self._instead_of_parameters = ray.put(b"")

    def submit(self, work: Work[Any], address: TaskAddress, parameters: Any) -> Any:
        """As `WorkerGroup`; the arguments are pickled here as there."""
        return self.rank.run.remote(pickle.dumps(work), pickle.dumps(address), self._instead_of_parameters)

    def cancel(self, reference: Any) -> None:
        """Never."""


class Groups:
    """A fleet that is there and stays there."""

    awaited: tuple[Any, ...] = ()

    def __init__(self) -> None:
        self.shards = Shards(_config(TASKS[0]))
        self._all_shards = [ray.remote(Shard).options(num_cpus=0).remote() for _ in range(max(SHARDS))]
        self.ready = {number: Group() for number in range(GROUPS)}

    def use(self, shards: int, meta: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        """The first so many shards, in steps from `meta`."""
        self.shards.actors = self._all_shards[:shards]
        reply = pickle.dumps(Reply(checksum(meta), TaskResult(None, ("",) * shards, 1.0, (1.0,), norm=1.0)))
        ray.get([group.rank.prepare.remote(reply) for group in self.ready.values()])
        parts = [Combined(where.start, meta[where], checksum(meta[where])) for where in cuts(SIZE, shards)]
        ray.get([a.prepare.remote(pickle.dumps(p)) for a, p in zip(self.shards.actors, parts, strict=True)])

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
        groups = Groups()
        found = {shards: {tasks: _step(groups, shards, tasks) for tasks in TASKS} for shards in SHARDS}
        asked = {shards: _ask(groups, shards) for shards in SHARDS}
        put_s = {str(size): _seconds_to_put(size) for size in SIZES}
    finally:
        ray.shutdown()
    a_task = [(cpu[TASKS[1]] - cpu[TASKS[0]]) / (TASKS[1] - TASKS[0]) for cpu in found.values()]
    return {
        "groups": GROUPS,
        "cpu_s": {f"{shards} shards, {tasks} tasks": s for shards, c in found.items() for tasks, s in c.items()},
        "a_task_s": sum(a_task) / len(a_task),
        "put_s": put_s,
        "a_shard_s": (asked[SHARDS[1]] - asked[SHARDS[0]]) / (SHARDS[1] - SHARDS[0]),
    }


def _ask(groups: Groups, shards: int) -> float:
    """CPU seconds for all that a step asks of the shards; the median of `ROUNDS`."""
    groups.use(shards, np.ones(SIZE, np.float32))
    counted = [Counted(TaskAddress("train", 0, 0, index), 1, 1.0) for index in range(TASKS[1])]
    spent = []
    for _ in range(ROUNDS):
        began = time.process_time()
        groups.shards.begin("version")
        groups.shards.combine(0, counted)
        groups.shards.result(1)
        spent.append(time.process_time() - began)
    return sorted(spent)[ROUNDS // 2]


def _seconds_to_put(size: int) -> float:
    """CPU seconds for the parameters into the object store, once a step as the executor does it.

    The first times touch new memory; later ones get what the step before the last left. The median of the last five.
    """
    parameters, reference = Parameters(np.zeros(size, np.float32), "version"), None
    spent = []
    for _ in range(11):
        began = time.process_time()
        newest = ray.put(parameters)
        spent.append(time.process_time() - began)
        reference = newest  # only now the one before is let go
        time.sleep(0.5)
    del reference
    return sorted(spent[-5:])[2]


def _config(tasks: int) -> RunConfig:
    return config_from_dict(
        {
            "name": "calls",
            "learner": "text_classifier",
            "data": {"name": "labelled_text", "dataset": "oos"},
            "outer": {"tasks_per_step": tasks},
        }
    )


def _step(groups: Groups, shards: int, tasks: int) -> float:
    """The median CPU seconds of some steps after a first one."""
    config, meta = _config(tasks), np.ones(SIZE, np.float32)
    groups.use(shards, meta)
    executor = RayExecutor(config, lambda note: None)
    executor._fleet = groups  # type: ignore[assignment]
    executor._scheduler = Scheduler(config.workers.stragglers, queue=IN_FLIGHT // GROUPS)
    spent = []
    for step in range(1 + STEPS):
        began = time.process_time()
        compute_step(config, step, meta[:], MetaGradientWork(), executor, QuietProgress())
        spent.append(time.process_time() - began)
    return sorted(spent[1:])[STEPS // 2]
