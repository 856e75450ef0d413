"""Executors: where the workers live. The coordinator sees only this interface.

`LocalExecutor` computes in this process and needs neither Ray nor DeepSpeed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import torch

from metacl.config import RunConfig
from metacl.coordination.flat import Flat
from metacl.coordination.gathering import Gathering, InProcess
from metacl.coordination.worker import Done, Meta, PartedMeta, ReplyDamaged, TaskFailed, Work, Worker
from metacl.errors import ResourceError
from metacl.tasks import TaskAddress

R = TypeVar("R")
Notify = Callable[[str], None]
"""Receives one line a person should see while something takes time."""

LeftOut = Callable[[TaskAddress, str], None]
"""Receives the address of a task that has no result, and why."""


class Executor(Protocol):
    """Starts workers, spreads work over them, stops them.

    waited_s : seconds spent waiting for workers so far; all other time of a step is the coordinator's own.
    """

    waited_s: float

    def start(self) -> None:
        """Bring the workers up. Raises `ResourceError` if that cannot be, within a bounded time."""
        ...

    def map(
        self, work: Work[R], addresses: Sequence[TaskAddress], meta: Meta, left_out: LeftOut | None = None
    ) -> Iterator[Done[R]]:
        """Compute `work` for every address; results come as they finish, in any order, checked, each exactly once.

        meta : its memory may be used again when the last result is taken.
        left_out : told of every task that has no usable result (twice, on two groups if there are two) or was dropped
        as a straggler. None: such a task is a `TaskFailed`.
        """
        ...

    def foresee(self, addresses: Sequence[TaskAddress]) -> None:
        """Training tasks that will be asked for after the next `map`: workers that wait may begin with them."""
        ...

    def gathering(self, meta: Meta) -> Gathering:
        """Where the gradients of a step at parameters `meta` are to be combined; ready for them."""
        ...

    def close(self) -> None:
        """Stop the workers and free what they hold."""
        ...


def out_of_memory(where: object, error: BaseException) -> ResourceError:
    """What to tell a user whose task did not fit."""
    return ResourceError(
        f"{where}: out of memory ({str(error).splitlines()[0] if str(error) else type(error).__name__}). "
        f"Lower episodes.ways, episodes.shots or episodes.queries, learner.max_length, or keep fewer inner graphs "
        f"(estimator.allowance=one)."
    )


def give_up(address: TaskAddress, error: TaskFailed, left_out: LeftOut | None) -> None:
    """A task stays without a result: tell whoever can go on without it, else raise with its address."""
    if left_out is None:
        raise TaskFailed(f"task {address}: {error}.")
    left_out(address, str(error))


class LocalExecutor:
    """One worker in this process."""

    def __init__(self, config: RunConfig, notify: Notify) -> None:
        self._config = config
        self._notify = notify
        self._worker: Worker | None = None
        self.waited_s = 0.0

    def start(self) -> None:
        """Load data and model. Raises `ResourceError` if the GPU asked for is not there."""
        if self._config.workers.gpus_per_group > torch.cuda.device_count():
            raise ResourceError(
                f"workers.gpus_per_group: {self._config.workers.gpus_per_group} asked for, this machine has "
                f"{torch.cuda.device_count()}. Set workers.gpus_per_group=0."
            )
        self._notify(f"loading {self._config.learner.source()}")
        self._worker = Worker(self._config)

    def map(
        self, work: Work[R], addresses: Sequence[TaskAddress], meta: Meta, left_out: LeftOut | None = None
    ) -> Iterator[Done[R]]:
        """One after the other."""
        assert not isinstance(meta, PartedMeta), "one process holds them whole"
        for address in addresses:
            try:
                result = self._compute(work, address, meta)
            except TaskFailed as error:
                give_up(address, error, left_out)
            else:
                yield Done(address, result)

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
            raise out_of_memory(f"task {address}", error) from None
        finally:
            self.waited_s += time.perf_counter() - began
        work.check(result, meta)
        return result

    def foresee(self, addresses: Sequence[TaskAddress]) -> None:
        """The one worker never waits."""

    def gathering(self, meta: Meta) -> Gathering:
        """Here."""
        return InProcess(self._config.outer.aggregator)

    def close(self) -> None:
        """Forget the worker."""
        self._worker = None
