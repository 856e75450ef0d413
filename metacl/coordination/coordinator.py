"""The outer loop: hand out addresses, combine what comes back in address order, take a step, save.

The coordinator knows nothing of models, text, Ray or DeepSpeed. Episodes are functions of their addresses and
results are combined in address order, so what it trains does not depend on who computed what, or when.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

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
from metacl.errors import ConfigError, RunInterrupted, TrainingError
from metacl.learners.base import Params
from metacl.tasks import TaskAddress


@dataclass(frozen=True)
class StepMetrics:
    """What one outer step did. Losses are means over the step's tasks; support losses are before and after adapting.

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


def train(
    config: RunConfig,
    initial: Params,
    executor: Executor,
    progress: Progress,
    signals: StopSignals,
    resume: Resume = "auto",
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
    resume : "auto", "never" or the path of a checkpoint
        Continue from the newest sound checkpoint of the run's folder, refuse to, or continue from this one.

    Raises
    ------
    RunInterrupted
        SIGINT or SIGTERM; the last finished step is saved.
    TrainingError, ResourceError, ConfigError
        See `metacl.errors`.
    """
    folder = RunFolder(config.folder)
    outer = OuterOptimizer(config.outer, initial)
    layout = FlatLayout.of(initial)
    first = _restore(folder, outer, layout, progress.note, resume)
    if first > config.outer.steps:
        raise ConfigError(
            f"outer.steps: {config.outer.steps}, but this run is already trained for {first}. Set outer.steps={first} "
            f"or more, or give another folder (output=…)."
        )
    folder.keep_metrics_until(first)
    saved = first if first else -1
    step = first
    try:
        while step < config.outer.steps:
            with signals.abandonable():
                started = time.perf_counter()
                results = _compute(config, step, layout.flatten(outer.meta), executor, progress)
            metrics = _step(config, step, results, outer, layout, started)
            step += 1
            folder.append_metrics(vars(metrics))
            if step % config.checkpoints.every == 0 or step == config.outer.steps:
                _save(folder, step, outer, config)
                saved = step
            progress.step_done(metrics, config.outer.steps)
    except StopRequested:
        if saved != step:
            _save(folder, step, outer, config)
        raise RunInterrupted(
            f"stopped after {step} of {config.outer.steps} steps; everything up to there is saved in "
            f"{folder.checkpoints}. The same command continues it."
        ) from None
    return {name: parameter.detach().clone() for name, parameter in outer.meta.items()}


def _restore(folder: RunFolder, outer: OuterOptimizer, layout: FlatLayout, notify: Notify, resume: Resume) -> int:
    """Bring the outer loop to the checkpoint it should continue from; the number of steps already taken."""
    if resume == "never":
        return 0
    checkpoint = load_checkpoint(resume) if isinstance(resume, Path) else newest_checkpoint(folder.checkpoints, notify)
    if checkpoint is None:
        return 0
    if FlatLayout.of(checkpoint.meta) != layout:
        raise ConfigError(
            f"the checkpoint at step {checkpoint.step} holds other meta-parameters than this config makes."
        )
    outer.restore(checkpoint.meta, checkpoint.outer_state)
    notify(f"continuing after step {checkpoint.step}")
    return checkpoint.step


def _compute(
    config: RunConfig, step: int, meta: np.ndarray, executor: Executor, progress: Progress
) -> dict[TaskAddress, TaskResult]:
    addresses = [TaskAddress("train", config.seed, step, index) for index in range(config.outer.tasks_per_step)]
    results: dict[TaskAddress, TaskResult] = {}
    for done in executor.map(MetaGradientWork(), addresses, meta):
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
    started: float,
) -> StepMetrics:
    combining = time.perf_counter()
    ordered = [results[address] for address in sorted(results)]
    combined = config.outer.aggregator.combine([result.gradient for result in ordered])
    norm = outer.step(layout.unflatten(combined.astype(np.float32)), step)
    if not all(bool(torch.isfinite(parameter).all()) for parameter in outer.meta.values()):
        raise TrainingError(f"outer step {step}: the meta-parameters are not finite. Lower outer.learning_rate.")
    now = time.perf_counter()
    steps = config.inner.steps
    errors = [result.estimator_error for result in ordered if result.estimator_error is not None]
    return StepMetrics(
        step=step + 1,
        query_loss=_mean([result.query_loss for result in ordered]),
        support_loss_first=_mean([result.support_losses[0] for result in ordered]) if steps else None,
        support_loss_last=_mean([result.support_losses[-1] for result in ordered]) if steps else None,
        gradient_norm=norm,
        tasks=len(ordered),
        seconds=now - started,
        coordinator_seconds=now - combining,
        estimator_error=_mean(errors) if errors else None,
    )


def _save(folder: RunFolder, step: int, outer: OuterOptimizer, config: RunConfig) -> None:
    save_checkpoint(folder.checkpoints, Checkpoint(step, outer.meta, outer.state()), config.checkpoints.keep)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
