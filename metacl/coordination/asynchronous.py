"""Asynchronous outer steps: a step is taken whenever `tasks_per_step` results are in, and no group waits for another.

A result counts if its parameters are at most `staleness` outer steps old by then; an older one is refused, and its task
computed again at newer parameters: bounded staleness (Ho et al. 2013, "More Effective Distributed ML via a Stale
Synchronous Parallel Parameter Server"). Which results make a step depends on timing, and so does what is trained.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from typing import Protocol, cast

from metacl.config import RunConfig
from metacl.coordination.executor import Executor, LeftOut
from metacl.coordination.flat import Flat
from metacl.coordination.gathering import InProcess
from metacl.coordination.step import MetaGradient, Progress, StepFailed, TaskLosses
from metacl.coordination.worker import Done, TaskResult, Work
from metacl.tasks import TaskAddress


class Streaming(Protocol):
    """An executor with groups that need not wait for each other."""

    def stream(
        self,
        work: Work[TaskResult],
        addresses: Iterator[TaskAddress],
        meta: Callable[[], Flat],
        staleness: int,
        left_out: LeftOut,
    ) -> Generator[Done[TaskResult], None, None]:
        """Results as they come, for as long as it is asked. Whenever `meta` gives another array a step was taken.

        The array's memory is used again for the next step's.
        """
        ...


def asynchronous_steps(
    config: RunConfig, executor: Executor, progress: Progress, step: int
) -> AsynchronousSteps | None:
    """What takes the steps from `step` on, if the config asks for it."""
    if config.outer.asynchronous is None:
        return None
    progress.note("asynchronous outer steps: what is trained depends on timing")
    return AsynchronousSteps(config, config.outer.asynchronous.staleness, cast(Streaming, executor), progress, step)


class AsynchronousSteps:
    """One endless stream of results, `tasks_per_step` of which are a step.

    On a resumed run the stream begins with the tasks of that step: those of earlier steps that were never finished are
    not taken up again, and those of later steps that were counted already are counted again.
    """

    def __init__(self, config: RunConfig, staleness: int, executor: Streaming, progress: Progress, step: int) -> None:
        self._outer = config.outer
        self._progress = progress
        self._step = step
        self._left_out: dict[TaskAddress, str] = {}
        self._addresses = (
            TaskAddress("train", config.seed, later, index)
            for later in itertools.count(step)
            for index in range(config.outer.tasks_per_step)
        )
        self._executor, self._staleness = executor, staleness
        self._stream: Generator[Done[TaskResult], None, None] | None = None

    def compute_step(self, step: int, meta: Flat, work: Work[TaskResult]) -> MetaGradient:
        """The combined gradient of the next results, for the step from `meta`. Raises as `step.compute_step`."""
        self._step, self._meta, self._left_out = step, meta, {}
        if self._stream is None:
            self._stream = self._executor.stream(
                work, self._addresses, lambda: self._meta, self._staleness, self._leave_out
            )
        count, lags = self._outer.tasks_per_step, []
        found: dict[TaskAddress, TaskResult] = {}
        while len(found) < count:
            done = next(self._stream)
            found[done.address] = done.result
            lags.append(done.staleness)
            self._progress.task_done(step, len(found), count)
        gathering = InProcess(self._outer.aggregator)
        gathering.combine(found)
        losses = [TaskLosses.of(found[address]) for address in sorted(found)]
        return MetaGradient(gathering.result(), losses, dict(self._left_out), sum(lags) / count)

    def close(self) -> None:
        """End the stream: what was begun for later steps is given up."""
        if self._stream is not None:
            self._stream.close()

    def _leave_out(self, address: TaskAddress, reason: str) -> None:
        self._left_out[address] = reason
        self._progress.note(f"task {address} is left out: {reason}")
        if len(self._left_out) > (1 - self._outer.minimum_completion) * self._outer.tasks_per_step:
            raise StepFailed(
                f"outer step {self._step}: {len(self._left_out)} tasks have no usable meta-gradient, and "
                f"outer.minimum_completion is {self._outer.minimum_completion:g} of {self._outer.tasks_per_step}. The "
                f"last, task {address}: {reason}.",
                self._left_out,
            )
