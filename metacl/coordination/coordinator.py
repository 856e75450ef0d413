"""The outer loop: hand out addresses, combine what comes back in address order, take a step, save.

The coordinator knows nothing of models, text, Ray or DeepSpeed. Episodes are functions of their addresses and
results are combined in address order, so what it trains does not depend on who computed what, or when.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from torch import Tensor

from metacl.config import RunConfig
from metacl.coordination.asynchronous import asynchronous_steps
from metacl.coordination.checkpoint import Checkpoint, load_checkpoint, newest_checkpoint, save_checkpoint
from metacl.coordination.executor import Executor, Notify
from metacl.coordination.failed_tasks import record_failed
from metacl.coordination.faults import Faults
from metacl.coordination.flat import FlatLayout
from metacl.coordination.held_out import HeldOutState, held_out_loss
from metacl.coordination.interrupt import StopRequested, StopSignals
from metacl.coordination.meta_state import HoldsParts, MetaState, PartedState, WholeState
from metacl.coordination.run_folder import RunFolder
from metacl.coordination.step import MetaGradient, Progress, StepClock, StepFailed, compute_step, step_metrics
from metacl.coordination.worker import Meta, MetaGradientWork, PartedMeta
from metacl.errors import ConfigError, ResourceError, RunInterrupted, TrainingError
from metacl.learners.base import Params
from metacl.learners.partition import Partition

Resume = Literal["auto", "never"] | Path


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
    if any(FlatLayout.of(meta) != layout for meta, _ in checkpoint.parts or [(checkpoint.meta, {})]):
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


@dataclass(frozen=True)
class Trained:
    """What training made: the meta-parameters after `step` outer steps, which may be the best ones, not the last.

    meta : by name; where they lie in parts, one is put together when it is asked for. broadcast : as executors take
    them.
    """

    meta: Mapping[str, Tensor]
    step: int
    broadcast: Meta


def train(
    config: RunConfig,
    initial: Params,
    executor: Executor,
    progress: Progress,
    signals: StopSignals,
    start: Checkpoint | None,
    partition: Partition | None = None,
) -> Trained:
    """Run (or continue) the outer loop.

    Parameters
    ----------
    initial : Params
        Where the meta-parameters start; of those that lie in parts only the shapes of a part count.
    executor : Executor
        Already started.
    signals : StopSignals
        Entered; says when to stop.
    start : Checkpoint or None
        From `starting_checkpoint`.
    partition : Partition, optional
        Of the meta-parameters, where they lie in parts on the executor's ranks.

    Raises
    ------
    RunInterrupted
        SIGINT or SIGTERM; the last finished step is saved.
    TrainingError, ResourceError
        See `metacl.errors`. When workers are lost for good the last finished step is saved first.
    """
    run = _Run(config, _state(config, initial, executor, partition, start), executor, progress, start)
    try:
        while True:
            with signals.abandonable():
                run.measure_held_out()
            if run.finished:
                return run.result()
            with signals.abandonable():
                gradient = run.compute()
            run.take_step(gradient)
    except (StopRequested, ResourceError) as stopped:
        run.save()
        if isinstance(stopped, ResourceError):
            raise
        raise RunInterrupted(
            f"stopped after {run.step} of {config.outer.steps} steps; everything up to there is saved in "
            f"{run.folder.checkpoints}. The same command continues it."
        ) from None
    finally:
        run.close()


def _state(
    config: RunConfig, initial: Params, executor: Executor, partition: Partition | None, start: Checkpoint | None
) -> MetaState:
    """At its start, or where `start` ends."""
    state: MetaState
    if partition is None or not partition.shapes:
        state = WholeState(config.outer, initial)
    else:
        state = PartedState(config, initial, partition, cast(HoldsParts, executor), start is None)
    if start is not None:
        state.restore(start)
    return state


class _Run:
    """The outer loop's state: the optimizer, how many steps are taken, how the held-out tasks went, what is saved."""

    def __init__(
        self, config: RunConfig, state: MetaState, executor: Executor, progress: Progress, start: Checkpoint | None
    ) -> None:
        self.folder = RunFolder(config.folder)
        self.step = 0
        self._config = config
        self._executor = executor
        self._progress = progress
        self._state = state
        self._faults = Faults(config.faults, self.folder.faults, progress.note)
        self._held_out = HeldOutState()
        self._held_out_loss: float | None = None
        self._saved = -1
        if start is not None:
            self._held_out = HeldOutState(**start.held_out)
            self.step = self._saved = start.step
            progress.note(f"continuing after step {self.step}")
        self.folder.keep_metrics_until(self.step)
        if config.compiles:
            progress.note("the first task of each new shape compiles first, for up to a minute or two")
        self._clock = StepClock(executor)
        self._asynchronous = asynchronous_steps(config, executor, progress, self.step)

    @property
    def finished(self) -> bool:
        """All steps are taken, or the held-out tasks say that more would not help."""
        held_out = self._config.outer.held_out
        return self.step == self._config.outer.steps or (held_out is not None and self._held_out.stops(held_out))

    def measure_held_out(self) -> None:
        """If it is time: the loss on the held-out tasks. The best parameters so far are kept aside."""
        held_out = self._config.outer.held_out
        if held_out is None or not self._held_out.due(held_out, self.step, self._config.outer.steps):
            return
        loss = held_out_loss(self._config, held_out, self._executor, self._state.broadcast())
        after = self._held_out.after(self.step, loss)
        best = after.best_step == self.step
        if best:
            save_checkpoint(self.folder.best, self._checkpoint(), keep=1)
        self._held_out, self._held_out_loss = after, loss
        self._progress.note(
            f"held-out query loss after step {self.step}: {loss:.4f}{', the best so far' if best else ''}"
        )

    def compute(self) -> MetaGradient:
        """The meta-gradient of the next step. Changes nothing but what is on record of failed tasks."""
        work, meta = self._faults.strike(MetaGradientWork()), self._state.broadcast()
        try:
            if self._asynchronous is not None and not isinstance(meta, PartedMeta):
                found = self._asynchronous.compute_step(self.step, meta, work)
            else:
                found = compute_step(self._config, self.step, meta, work, self._executor, self._progress)
        except StepFailed as error:
            record_failed(self.folder.failed, self.step, self._state.for_replay, error.left_out)
            raise
        if found.left_out:
            record_failed(self.folder.failed, self.step, self._state.for_replay, found.left_out)
        return found

    def take_step(self, found: MetaGradient) -> None:
        """Move the parameters, write the metrics, save if it is time."""
        # If this fails midway some of the parameters may have moved: nothing is saved as this step then.
        saved, self._saved = self._saved, self.step
        norm = self._state.move(found.gradient, self.step)
        self._saved = saved
        metrics = step_metrics(self.step, found, norm, self._clock, self._held_out_loss)
        self._held_out_loss = None
        self.step += 1
        self.folder.append_metrics(vars(metrics))
        if self.step % self._config.checkpoints.every == 0 or self.step == self._config.outer.steps:
            self.save()
        self._progress.step_done(metrics, self._config.outer.steps)

    def save(self) -> None:
        """Save the last finished step, unless it is saved."""
        if self._saved == self.step:
            return
        self._saved = self.step  # if it fails it is not tried again: the disk would still be full
        write = self._faults.writer(self.step)
        path = save_checkpoint(self.folder.checkpoints, self._checkpoint(), self._config.checkpoints.keep, write)
        self._faults.saved(path, self.step)

    def close(self) -> None:
        """Nothing more is computed."""
        if self._asynchronous is not None:
            self._asynchronous.close()

    def result(self) -> Trained:
        """The best parameters where held-out tasks say which, else the last. The last are saved."""
        self.save()
        if self._held_out.best_step < 0:
            return Trained(self._state.meta, self.step, self._state.broadcast())
        best = load_checkpoint(self.folder.best / f"step-{self._held_out.best_step}")
        self._state.restore(best)
        return Trained(self._state.meta, best.step, self._state.broadcast())

    def _checkpoint(self) -> Checkpoint:
        return self._state.checkpoint(self.step, self._held_out.to_dict())
