"""One outer step's meta-gradient: hand out addresses, check and sort what comes back, combine it in address order.

Nothing here changes the parameters; the coordinator does, with what this returns.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol

from metacl.config import RunConfig
from metacl.coordination.executor import Executor
from metacl.coordination.flat import Flat
from metacl.coordination.gathering import GradientsLost
from metacl.coordination.together import map_together
from metacl.coordination.worker import Meta, PartedGradient, TaskResult, Work
from metacl.errors import ResourceError, TrainingError
from metacl.tasks import TaskAddress

LOSSES = 3
"""A step whose gradients are lost this often, one time after the other, ends the run."""


@dataclass(frozen=True)
class StepMetrics:
    """What one outer step did. Losses are means over the step's tasks; support losses are before and after adapting.

    coordinator_seconds : of `seconds`, what was not spent waiting for workers; saving the step before is in it.
    left_out : tasks that have no part in the step, because their result was not usable or came too late.
    estimator_error : relative distance from the exact meta-gradient, the mean over the step's monitored tasks.
    held_out_loss : query loss on the held-out tasks before the step, where it was measured.
    staleness : outer steps taken since its tasks were handed out, the mean; None in synchronous steps.
    """

    step: int
    query_loss: float
    support_loss_first: float | None
    support_loss_last: float | None
    gradient_norm: float
    tasks: int
    seconds: float
    coordinator_seconds: float
    left_out: int = 0
    estimator_error: float | None = None
    held_out_loss: float | None = None
    staleness: float | None = None


class Progress(Protocol):
    """Whoever shows a run to a person."""

    def note(self, text: str) -> None:
        """Something worth a line."""
        ...

    def task_done(self, step: int, done: int, of: int) -> None:
        """One more task of the current step is back."""
        ...

    def step_done(self, metrics: StepMetrics, steps: int) -> None:
        """An outer step is taken."""
        ...


class StepClock:
    """Times a step from the end of the one before, and what of it the executor spent waiting for workers."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._began, self._waited = time.perf_counter(), executor.waited_s

    def lap(self) -> tuple[float, float]:
        """(seconds of the step, seconds of it that were the coordinator's own). The next step begins now."""
        now, waited = time.perf_counter(), self._executor.waited_s
        seconds, own = now - self._began, now - self._began - (waited - self._waited)
        self._began, self._waited = now, waited
        return seconds, own


@dataclass(frozen=True)
class TaskLosses:
    """What is kept of a task once its gradient is combined."""

    query: float
    support: tuple[float, ...]
    estimator_error: float | None

    @classmethod
    def of(cls, result: TaskResult) -> TaskLosses:
        """Of this result."""
        return cls(result.query_loss, result.support_losses, result.estimator_error)


@dataclass(frozen=True)
class MetaGradient:
    """A step's combined meta-gradient (P,), its tasks' losses in address order, and the tasks left out, with why.

    staleness : the mean of the outer steps taken since the tasks were handed out; None in synchronous steps.
    """

    gradient: Flat | PartedGradient
    losses: list[TaskLosses]
    left_out: dict[TaskAddress, str]
    staleness: float | None = None


class StepFailed(TrainingError):
    """Too few of a step's tasks have a usable result. Carries them with the reasons."""

    def __init__(self, message: str, left_out: dict[TaskAddress, str]) -> None:
        super().__init__(message)
        self.left_out = left_out


def compute_step(
    config: RunConfig,
    step: int,
    meta: Meta,
    work: Work[TaskResult],
    executor: Executor,
    progress: Progress,
) -> MetaGradient:
    """The meta-gradient of outer step `step` (from 0) at parameters `meta`.

    With ``outer.accumulate`` portions, one portion's gradients are in memory at a time; each is combined by itself, and
    the portions are averaged by their numbers of tasks.

    Raises
    ------
    StepFailed
        Fewer than ``outer.minimum_completion`` of the tasks have a usable result.
    ResourceError
        Gradients were lost `LOSSES` times.
    """
    for _ in range(LOSSES):
        try:
            return _compute_once(config, step, meta, work, executor, progress)
        except GradientsLost as lost:
            progress.note(f"outer step {step} is computed again: {lost}")
    raise ResourceError(
        f"outer step {step}: its gradients were lost {LOSSES} times, one after the other. If memory is short, raise "
        f"workers.gradient_shards or outer.accumulate. The same command continues from the last finished step."
    )


def _compute_once(
    config: RunConfig, step: int, meta: Meta, work: Work[TaskResult], executor: Executor, progress: Progress
) -> MetaGradient:
    outer = config.outer
    count = outer.tasks_per_step * outer.accumulate
    addresses, later = ([TaskAddress("train", config.seed, s, i) for i in range(count)] for s in (step, step + 1))
    known = [*addresses, *later] if step + 1 < outer.steps else addresses
    losses: list[TaskLosses] = []
    left_out: dict[TaskAddress, str] = {}
    gathering = executor.gathering(meta)

    def leave_out(address: TaskAddress, reason: str) -> None:
        left_out[address] = reason
        progress.note(f"task {address} is left out: {reason}")

    for begin in range(0, count, outer.tasks_per_step):
        portion = addresses[begin : begin + outer.tasks_per_step]
        valid: dict[TaskAddress, TaskResult] = {}
        together = config.workers.tasks_per_forward
        executor.foresee(known[begin + outer.tasks_per_step :][: outer.tasks_per_step : together])
        if together > 1:
            replies = map_together(executor, portion, together, meta, leave_out)
        else:
            replies = executor.map(work, portion, meta, leave_out)
        for done in replies:
            valid[done.address] = done.result
            if done.result.compile_seconds > 1:
                progress.note(
                    f"task {done.address}: {done.result.compile_seconds:.0f} s went into compiling for its shapes; the "
                    f"result is on disk for other workers and runs"
                )
            progress.task_done(step, len(losses) + len(valid), count)
        losses += [TaskLosses.of(valid[address]) for address in sorted(valid)]
        if valid:
            gathering.combine(valid)
    if len(losses) < max(1, math.ceil(outer.minimum_completion * count)):
        first = min(left_out)
        raise StepFailed(
            f"outer step {step}: {len(left_out)} of {count} tasks have no usable meta-gradient, and "
            f"outer.minimum_completion is {outer.minimum_completion:g}. The first, task {first}: {left_out[first]}.",
            left_out,
        )
    return MetaGradient(gathering.result(), losses, left_out)


def step_metrics(
    step: int, found: MetaGradient, gradient_norm: float, clock: StepClock, held_out_loss: float | None
) -> StepMetrics:
    """What there is to say about outer step `step` (from 0) when it is taken. The clock's next step begins."""
    seconds, own = clock.lap()
    supported = all(losses.support for losses in found.losses)
    errors = [e for e in (losses.estimator_error for losses in found.losses) if e is not None and math.isfinite(e)]
    return StepMetrics(
        step=step + 1,
        query_loss=mean([losses.query for losses in found.losses]),
        support_loss_first=mean([losses.support[0] for losses in found.losses]) if supported else None,
        support_loss_last=mean([losses.support[-1] for losses in found.losses]) if supported else None,
        gradient_norm=gradient_norm,
        tasks=len(found.losses),
        seconds=seconds,
        coordinator_seconds=own,
        left_out=len(found.left_out),
        estimator_error=mean(errors) if errors else None,
        held_out_loss=held_out_loss,
        staleness=found.staleness,
    )


def mean(values: list[float]) -> float:
    """The plain mean."""
    return sum(values) / len(values)
