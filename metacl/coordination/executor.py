"""Executors: where the workers live. The coordinator sees only this interface.

A `WorkerPool` spreads work over workers; an `Executor` is one that can do what training needs beside. The local ones
compute in this process and need neither Ray nor DeepSpeed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch

from metacl.config import RunConfig
from metacl.coordination.flat import Flat
from metacl.coordination.gathering import Gathering, InProcess
from metacl.coordination.worker import Done, Job, Meta, PartedMeta, ReplyDamaged, TaskFailed, Work, Worker
from metacl.errors import ResourceError
from metacl.tasks import TaskAddress

R = TypeVar("R")
Notify = Callable[[str], None]
"""Receives one line a person should see while something takes time."""

LeftOut = Callable[[TaskAddress, str], None]
"""Receives the address of a task that has no result, and why."""

Further = Callable[[], Sequence[TaskAddress]]
"""Asked whenever a result was taken: what can be computed now, beside what was known before."""


class WorkerPool(Protocol):
    """Starts workers, spreads work over them, stops them.

    waited_s : seconds spent waiting for workers so far; all other time of a step is the coordinator's own.
    """

    waited_s: float

    def start(self) -> None:
        """Bring the workers up. Raises `ResourceError` if that cannot be, within a bounded time."""
        ...

    def map(
        self,
        work: Work[R],
        addresses: Sequence[TaskAddress],
        meta: Meta,
        left_out: LeftOut | None = None,
        further: Further | None = None,
    ) -> Iterator[Done[R]]:
        """Compute `work` for every address; results come as they finish, in any order, checked, each exactly once.

        meta : its memory may be used again when the last result is taken.
        left_out : told of every task that has no usable result (twice, on two groups if there are two) or was dropped
        as a straggler. None: such a task is a `TaskFailed`.
        further : for work that makes more of it. None: there is none.
        """
        ...

    def close(self) -> None:
        """Stop the workers and free what they hold."""
        ...


class Executor(WorkerPool, Protocol):
    """A pool whose workers compute meta-gradients."""

    def foresee(self, addresses: Sequence[TaskAddress]) -> None:
        """Training tasks that will be asked for after the next `map`: workers that wait may begin with them."""
        ...

    def gathering(self, meta: Meta) -> Gathering:
        """Where the gradients of a step at parameters `meta` are to be combined; ready for them."""
        ...


P = TypeVar("P", bound=WorkerPool)


@contextmanager
def running(pool: P) -> Iterator[P]:
    """Started; closed on the way out whatever happens."""
    try:
        pool.start()
        yield pool
    finally:
        pool.close()


def out_of_memory(where: object, error: BaseException, less_memory: str) -> ResourceError:
    """What to tell a user whose task did not fit."""
    return ResourceError(
        f"{where}: out of memory ({str(error).splitlines()[0] if str(error) else type(error).__name__}). {less_memory}"
    )


def give_up(address: TaskAddress, error: TaskFailed, left_out: LeftOut | None) -> None:
    """A task stays without a result: tell whoever can go on without it, else raise with its address."""
    if left_out is None:
        raise TaskFailed(f"task {address}: {error}.")
    left_out(address, str(error))


class LocalPool:
    """One worker in this process."""

    def __init__(self, config: Job, notify: Notify, kind: Callable[[Any], Any]) -> None:
        self._job = config
        self._notify = notify
        self._kind = kind
        self._worker: Any = None
        self.waited_s = 0.0

    def start(self) -> None:
        """Load data and model. Raises `ResourceError` if the GPU asked for is not there."""
        if self._job.workers.gpus_per_group > torch.cuda.device_count():
            raise ResourceError(
                f"workers.gpus_per_group: {self._job.workers.gpus_per_group} asked for, this machine has "
                f"{torch.cuda.device_count()}. Set workers.gpus_per_group=0."
            )
        self._notify(f"loading {self._job.learner.source()}")
        self._worker = self._kind(self._job)

    def map(
        self,
        work: Work[R],
        addresses: Sequence[TaskAddress],
        meta: Meta,
        left_out: LeftOut | None = None,
        further: Further | None = None,
    ) -> Iterator[Done[R]]:
        """One after the other; what comes of a result goes before all else."""
        assert not isinstance(meta, PartedMeta), "one process holds them whole"
        waiting = deque(addresses)
        while waiting:
            address = waiting.popleft()
            try:
                result = self._compute(work, address, meta)
            except TaskFailed as error:
                give_up(address, error, left_out)
            else:
                yield Done(address, result)
                if further is not None:
                    waiting.extendleft(reversed(further()))

    def _compute(self, work: Work[R], address: TaskAddress, meta: Flat) -> R:
        try:
            return self._attempt(work, address, meta)
        except (TaskFailed, ReplyDamaged) as error:
            self._notify(f"task {address}: {error}; trying once more")
        return self._attempt(work, address, meta)

    def _attempt(self, work: Work[R], address: TaskAddress, meta: Flat) -> R:
        assert self._worker is not None, "start() first"
        began = time.perf_counter()
        try:
            result = work.handed_out(address)(self._worker, address, meta)
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise out_of_memory(f"task {address}", error, self._job.less_memory) from None
        finally:
            self.waited_s += time.perf_counter() - began
        work.check(result, meta)
        return result

    def close(self) -> None:
        """Forget the worker."""
        self._worker = None


class LocalExecutor(LocalPool):
    """Training in this process."""

    def __init__(self, config: RunConfig, notify: Notify) -> None:
        super().__init__(config, notify, Worker)
        self._aggregator = config.outer.aggregator

    def foresee(self, addresses: Sequence[TaskAddress]) -> None:
        """The one worker never waits."""

    def gathering(self, meta: Meta) -> Gathering:
        """Here."""
        return InProcess(self._aggregator)
