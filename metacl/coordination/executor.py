"""Executors: where the workers live. The coordinator sees only this interface.

`LocalExecutor` computes in this process and needs neither Ray nor DeepSpeed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import torch

from metacl.config import RunConfig
from metacl.coordination.flat import Flat
from metacl.coordination.worker import Done, Work, Worker
from metacl.errors import ResourceError
from metacl.tasks import TaskAddress

R = TypeVar("R")
Notify = Callable[[str], None]
"""Receives one line a person should see while something takes time."""


class Executor(Protocol):
    """Starts workers, spreads work over them, stops them."""

    def start(self) -> None:
        """Bring the workers up. Raises `ResourceError` if that cannot be, within a bounded time."""
        ...

    def map(self, work: Work[R], addresses: Sequence[TaskAddress], meta: Flat) -> Iterator[Done[R]]:
        """Compute `work` for every address; results come as they finish, in any order, each exactly once."""
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


class LocalExecutor:
    """One worker in this process."""

    def __init__(self, config: RunConfig, notify: Notify) -> None:
        self._config = config
        self._notify = notify
        self._worker: Worker | None = None

    def start(self) -> None:
        """Load data and model. Raises `ResourceError` if the GPU asked for is not there."""
        if self._config.workers.gpus_per_group > torch.cuda.device_count():
            raise ResourceError(
                f"workers.gpus_per_group: {self._config.workers.gpus_per_group} asked for, this machine has "
                f"{torch.cuda.device_count()}. Set workers.gpus_per_group=0."
            )
        self._notify(f"loading {self._config.learner.source()}")
        self._worker = Worker(self._config)

    def map(self, work: Work[R], addresses: Sequence[TaskAddress], meta: Flat) -> Iterator[Done[R]]:
        """One after the other."""
        assert self._worker is not None, "start() first"
        for address in addresses:
            try:
                result = work(self._worker, address, meta)
            except (MemoryError, torch.OutOfMemoryError) as error:
                raise out_of_memory(f"task {address}", error) from None
            yield Done(address, result)

    def close(self) -> None:
        """Forget the worker."""
        self._worker = None
