"""The outer loop: hand out addresses, combine what comes back in address order, take a step, save.

The coordinator knows nothing of models, text, Ray or DeepSpeed. Episodes are functions of their addresses and
results are combined in address order, so what it trains does not depend on who computed what, or when.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch

from metacl.config import RunConfig
from metacl.coordination.checkpoint import Checkpoint, load_checkpoint, newest_checkpoint, save_checkpoint
from metacl.coordination.executor import Executor, Notify
from metacl.coordination.flat import FlatLayout, checksum
from metacl.coordination.interrupt import StopRequested, StopSignals
from metacl.coordination.outer import OuterOptimizer
from metacl.coordination.run_folder import RunFolder
from metacl.coordination.worker import MetaGradientWork, TaskResult
from metacl.errors import ConfigError, ResourceError, RunInterrupted, TrainingError
from metacl.learners.base import Params
from metacl.tasks import TaskAddress


@dataclass(frozen=True)
class StepMetrics:
    """What one outer step did. Losses are means over the step's tasks; support losses are before and after adapting.

    coordinator_seconds : of `seconds`, what was not spent waiting for workers; saving the step before is in it.
    estimator_error : relative distance from the exact meta-gradient, the mean over the step's monitored tasks.
    """

    step: int
    query_loss: float
    support_loss_first: float | None
    support_loss_last: float | None
    gradient_norm: float
    tasks: int
    seconds: float
    coordinator_seconds: float
    estimator_error: float | None = None


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


Resume = Literal["auto", "never"] | Path
T = TypeVar("T")


def starting_checkpoint(config: RunConfig, layout: FlatLayout, resume: Resume, notify: Notify) -> Checkpoint | None:
    """The checkpoint this run continues from, verified; None to start at the beginning. Changes nothing.

    Raises
    ------
    ConfigError
        `resume` is no checkpoint, or one of another run; or the run is already trained for more than ``outer.steps``.
    TrainingError
        Every checkpoint in the run's folder is damaged.
    """
    if resume == "never":
        return None
    if isinstance(resume, Path):
        checkpoint = _named_checkpoint(config, resume)
    else:
        found = newest_checkpoint(RunFolder(config.folder).checkpoints, notify)
        if found is None:
            return None
        checkpoint = found
    if FlatLayout.of(checkpoint.meta) != layout:
        raise ConfigError(
            f"the checkpoint at step {checkpoint.step} holds other meta-parameters than this config makes."
        )
    if checkpoint.step > config.outer.steps:
        raise ConfigError(
            f"outer.steps: {config.outer.steps}, but this run is already trained for {checkpoint.step}. "
            f"Set outer.steps={checkpoint.step} or more, or give another folder (output=…)."
        )
    return checkpoint


def _named_checkpoint(config: RunConfig, path: Path) -> Checkpoint:
    try:
        checkpoint = load_checkpoint(path)
    except TrainingError as error:
        raise ConfigError(f"--resume: {error}") from None
    differing = RunFolder(path.resolve().parents[1]).differences(config)
    if differing:
        raise ConfigError(f"--resume {path}: belongs to a different run ({'; '.join(differing)}).")
    return checkpoint


def train(
    config: RunConfig,
    initial: Params,
    executor: Executor,
    progress: Progress,
    signals: StopSignals,
    start: Checkpoint | None,
) -> Params:
    """Run (or continue) the outer loop and return the trained meta-parameters.

    Parameters
    ----------
    initial : Params
        Where the meta-parameters start.
    executor : Executor
        Already started.
    signals : StopSignals
        Entered; says when to stop.
    start : Checkpoint or None
        From `starting_checkpoint`.

    Raises
    ------
    RunInterrupted
        SIGINT or SIGTERM; the last finished step is saved.
    TrainingError, ResourceError
        See `metacl.errors`. When workers are lost the last finished step is saved first.
    """
    folder = RunFolder(config.folder)
    outer = OuterOptimizer(config.outer, initial)
    layout = FlatLayout.of(initial)
    step = 0
    if start is not None:
        outer.restore(start.meta, start.outer_state)
        step = start.step
        progress.note(f"continuing after step {step}")
    folder.keep_metrics_until(step)
    saved = -1 if start is None else step
    clock = StepClock()
    try:
        while step < config.outer.steps:
            with signals.abandonable():
                results = _compute(config, step, layout.flatten(outer.meta), executor, progress, clock)
            metrics = _step(config, step, results, outer, layout, clock)
            step += 1
            folder.append_metrics(vars(metrics))
            if step % config.checkpoints.every == 0 or step == config.outer.steps:
                _save(folder, step, outer, config)
                saved = step
            progress.step_done(metrics, config.outer.steps)
    except (StopRequested, ResourceError) as stopped:
        if saved != step:
            _save(folder, step, outer, config)
        if isinstance(stopped, ResourceError):
            raise
        raise RunInterrupted(
            f"stopped after {step} of {config.outer.steps} steps; everything up to there is saved in "
            f"{folder.checkpoints}. The same command continues it."
        ) from None
    return {name: parameter.detach().clone() for name, parameter in outer.meta.items()}


class StepClock:
    """Times a step from the end of the one before, and what of it was spent waiting for workers."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._waited = 0.0

    def waiting(self, results: Iterator[T]) -> Iterator[T]:
        """The same results; the time until each is there counts as waiting."""
        while True:
            asked = time.perf_counter()
            result = next(results, None)
            self._waited += time.perf_counter() - asked
            if result is None:
                return
            yield result

    def lap(self) -> tuple[float, float]:
        """(seconds of the step, seconds of it that were the coordinator's own). The next step begins now."""
        now = time.perf_counter()
        seconds, own = now - self._began, now - self._began - self._waited
        self._began, self._waited = now, 0.0
        return seconds, own


def _compute(
    config: RunConfig, step: int, meta: np.ndarray, executor: Executor, progress: Progress, clock: StepClock
) -> dict[TaskAddress, TaskResult]:
    addresses = [TaskAddress("train", config.seed, step, index) for index in range(config.outer.tasks_per_step)]
    results: dict[TaskAddress, TaskResult] = {}
    for done in clock.waiting(executor.map(MetaGradientWork(), addresses, meta)):
        if checksum(done.result.gradient) != done.result.checksum:
            raise TrainingError(f"task {done.address}: the gradient was damaged on its way (checksum differs).")
        if not np.isfinite(done.result.gradient).all():
            raise TrainingError(
                f"task {done.address}: the meta-gradient is not finite (query loss {done.result.query_loss}, support "
                f"losses {list(done.result.support_losses)}). Lower inner.step_size or set outer.clip_norm."
            )
        results[done.address] = done.result
        progress.task_done(step, len(results), len(addresses))
    return {address: results[address] for address in addresses}


def _step(
    config: RunConfig,
    step: int,
    results: dict[TaskAddress, TaskResult],
    outer: OuterOptimizer,
    layout: FlatLayout,
    clock: StepClock,
) -> StepMetrics:
    ordered = [results[address] for address in sorted(results)]
    combined = config.outer.aggregator.combine([result.gradient for result in ordered])
    norm = outer.step(layout.unflatten(combined.astype(np.float32)), step)
    if not all(bool(torch.isfinite(parameter).all()) for parameter in outer.meta.values()):
        raise TrainingError(f"outer step {step}: the meta-parameters are not finite. Lower outer.learning_rate.")
    seconds, own = clock.lap()
    steps = config.inner.steps
    errors = [
        result.estimator_error
        for result in ordered
        if result.estimator_error is not None and math.isfinite(result.estimator_error)
    ]
    return StepMetrics(
        step=step + 1,
        query_loss=_mean([result.query_loss for result in ordered]),
        support_loss_first=_mean([result.support_losses[0] for result in ordered]) if steps else None,
        support_loss_last=_mean([result.support_losses[-1] for result in ordered]) if steps else None,
        gradient_norm=norm,
        tasks=len(ordered),
        seconds=seconds,
        coordinator_seconds=own,
        estimator_error=_mean(errors) if errors else None,
    )


def _save(folder: RunFolder, step: int, outer: OuterOptimizer, config: RunConfig) -> None:
    save_checkpoint(folder.checkpoints, Checkpoint(step, outer.meta, outer.state()), config.checkpoints.keep)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
