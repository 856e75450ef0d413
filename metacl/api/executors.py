"""The processes that compute a run's tasks, started and closed around what needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from metacl.api.progress import EvaluationProgress
from metacl.config import RunConfig
from metacl.coordination.executor import Executor, LocalExecutor, Notify, running
from metacl.coordination.interrupt import StopRequested, StopSignals
from metacl.errors import ConfigError, RunInterrupted


@contextmanager
def running_executor(config: RunConfig, notify: Notify) -> Iterator[Executor]:
    """The config's executor, started; closed on the way out whatever happens."""
    make: Callable[[RunConfig, Notify], Executor] = LocalExecutor
    if config.workers.executor == "ray":
        from metacl.coordination.ray_executor import RayExecutor

        make = RayExecutor
    with running(make(config, notify)) as executor:
        yield executor


@contextmanager
def measuring_executor(config: RunConfig, progress: EvaluationProgress) -> Iterator[Executor]:
    """The config's executor for an evaluation that a signal may stop at any time."""
    with running_executor(config, progress.note) as executor, StopSignals() as signals:
        try:
            with signals.abandonable():
                yield executor
        except StopRequested:
            raise RunInterrupted("the evaluation was stopped; nothing was written.") from None


def check_sent_whole(config: RunConfig) -> None:
    """A stored initialization goes to every worker as it is, so to none that holds a part of the parameters."""
    if config.parameters_in_parts:
        raise ConfigError(
            "workers.zero_stage: this run's parameters lie in parts, and a stored initialization is sent out whole. "
            "Evaluate it in one process (metacl evaluate … --groups 0), or set workers.zero_stage=2."
        )
