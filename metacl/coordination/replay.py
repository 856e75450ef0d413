"""Computing one task of a run again, alone and in this process, to see what happened in it."""

from __future__ import annotations

from dataclasses import dataclass

from metacl.aggregation.base import euclidean_norm
from metacl.config import RunConfig
from metacl.coordination.checkpoint import list_checkpoints, load_checkpoint
from metacl.coordination.failed_tasks import failed_steps, read_failed
from metacl.coordination.flat import Flat, FlatLayout, checksum
from metacl.coordination.run_folder import RunFolder
from metacl.coordination.worker import MetaGradientWork, TaskFailed, Worker
from metacl.errors import ConfigError
from metacl.learners.base import Params
from metacl.tasks import TaskAddress


@dataclass(frozen=True)
class Replay:
    """What a task did, and what is on record of it.

    recorded : why it was left out of its step, if it was. failure : why there is no usable result now, if so.
    Without a failure all the rest is there. not_finite : numbers of the gradient that are not, by meta-parameter.
    """

    address: TaskAddress
    recorded: str | None
    failure: str | None
    query_loss: float | None = None
    support_losses: tuple[float, ...] = ()
    gradient_norm: float | None = None
    checksum: str | None = None
    not_finite: dict[str, int] | None = None


def replay(config: RunConfig, step: int, index: int) -> Replay:
    """Compute task `index` of outer step `step` (both from 0, as in its address) with the parameters of that step.

    Raises
    ------
    ConfigError
        The run has no such task, or its parameters are not kept: those of failed tasks and of checkpoints are.
    """
    if config.parameters_in_parts:
        raise ConfigError(
            "replay: this run's parameters lie in parts, one a rank, and a task is computed again in one process. "
            "Train with workers.zero_stage=2 to replay; why a task failed is in the run's failed/ folder."
        )
    if config.outer.asynchronous is not None:
        raise ConfigError("replay: with outer.asynchronous nobody knows which parameters a task was computed with.")
    count = config.outer.tasks_per_step * config.outer.accumulate
    if not 0 <= index < count:
        raise ConfigError(f"replay: a step of this run has tasks 0 to {count - 1}, not {index}.")
    worker = Worker(config)
    address = TaskAddress("train", config.seed, step, index)
    parameters, recorded = _parameters(RunFolder(config.folder), step, worker.initial)
    if FlatLayout.of(parameters) != worker.layout:
        raise ConfigError("replay: the parameters on record are not those that this config makes.")
    meta, reason = worker.layout.flatten(parameters), recorded.get(str(address))
    work = MetaGradientWork()
    try:
        result = work(worker, address, meta)
    except TaskFailed as error:
        return Replay(address, reason, str(error))
    try:
        work.check(result, meta)
        failure = None
    except TaskFailed as error:
        failure = str(error)
    gradient = result.whole
    bad, sha = _not_finite(worker.layout, gradient), checksum(gradient)
    norm = euclidean_norm(gradient)
    return Replay(address, reason, failure, result.query_loss, result.support_losses, norm, sha, bad)


def _parameters(folder: RunFolder, step: int, initial: Params) -> tuple[Params, dict[str, str]]:
    """The meta-parameters that a step started from, and the reasons on record for its failed tasks."""
    failed = dict(failed_steps(folder.failed))
    if step in failed:
        return read_failed(failed[step])
    if step == 0:
        return initial, {}
    saved = dict(list_checkpoints(folder.checkpoints))
    if step in saved:
        return load_checkpoint(saved[step]).meta, {}
    known = sorted({0, *failed, *saved})
    raise ConfigError(
        f"replay: the parameters of step {step} are not kept in {folder.path}. There are those of step "
        f"{', '.join(map(str, known))}."
    )


def _not_finite(layout: FlatLayout, gradient: Flat) -> dict[str, int]:
    counts = {name: int((~tensor.isfinite()).sum()) for name, tensor in layout.unflatten(gradient).items()}
    return {name: count for name, count in counts.items() if count}
