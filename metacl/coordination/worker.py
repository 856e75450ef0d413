"""What one rank needs to compute any task: built from the config alone, knowing nothing of who asks.

A worker makes its own episodes from addresses and never calls back. Executors differ only in where the
workers live; `Work` is what is asked of one.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from metacl.aggregation.base import euclidean_norm
from metacl.config import RunConfig, Workers, config_from_dict
from metacl.coordination.flat import Flat, FlatLayout, checksum, cuts, examine
from metacl.errors import MetaclError, TrainingError
from metacl.learners import LearnerConfig
from metacl.learners.base import Params, Task, as_leaves, use_threads
from metacl.learners.engine import Engine
from metacl.learners.partition import Partition
from metacl.metagradients import InnerLoopDiverged, InnerProblem, MetaGradientResult, Reverse
from metacl.tasks import TaskAddress

R = TypeVar("R")

DAMAGED = "the gradient was damaged on its way (its checksum differs)"


class TaskFailed(TrainingError):
    """This one task has no usable result: it diverged, or what came back is not finite. Others may have one."""


class ReplyDamaged(TrainingError):
    """What arrived is not what the worker sent."""


class Job(Protocol):
    """A config as executors and ranks see it."""

    @property
    def workers(self) -> Workers:
        """Where its work is computed."""
        ...

    @property
    def plugins(self) -> tuple[str, ...]:
        """Modules of the user's own that a worker imports."""
        ...

    @property
    def learner(self) -> LearnerConfig:
        """What each rank loads."""
        ...

    @property
    def compiles(self) -> bool:
        """Whether workers compile, so that all need a compiler or none."""
        ...

    @property
    def less_memory(self) -> str:
        """What a user can do whose work does not fit, a sentence."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which `WorkerKind.read` makes an equal one."""
        ...


class WorkerKind(Protocol):
    """A class of workers, made where they are to compute."""

    @property
    def read(self) -> Callable[[dict[str, Any]], Job]:
        """Makes the config from the plain values that were sent."""
        ...

    def __call__(self, config: Any, engine: Engine | None = None) -> Any:
        """What `Work` is given. `config` is what `read` made."""
        ...


class Worker:
    """A model, a data set and the four choices of the algorithm, ready to compute tasks."""

    read = staticmethod(config_from_dict)

    def __init__(self, config: RunConfig, engine: Engine | None = None) -> None:
        use_threads(config.workers.threads)
        self.config = config
        self.rank = engine.ranks.rank if engine is not None else 0
        self.source = config.data.open()
        self.learner = config.learner.build(config.seed, rank_device(config.workers), engine)
        self.initial: Params = config.objective.meta_parameters(self.learner, config.inner, config.episodes.ways)
        self.layout = FlatLayout.of(self.initial)
        self.partition = config.inner.partitioned(self.learner.partition)
        self._ahead: dict[TaskAddress, Task] = {}

    def task(self, address: TaskAddress) -> Task:
        """The training episode as the model sees it: made ahead, or now."""
        made = self._ahead.pop(address, None)
        if made is None:
            made = self.learner.prepare(self.source.episode(address, self.config.episodes))
        return made

    def make_ahead(self, address: TaskAddress) -> None:
        """Make it now, for later; forget what was made ahead before and never asked for."""
        self._ahead = {address: self.task(address)}

    def parameters(self, meta: Flat) -> Params:
        """The buffer as named tensors on this worker's device."""
        return {name: tensor.to(self.learner.device) for name, tensor in self.layout.unflatten(meta).items()}


def rank_device(workers: Workers) -> torch.device:
    """Where a rank computes: its GPU, the only one that it sees, or the CPU."""
    return torch.device("cuda" if workers.gpus_per_group else "cpu")


class Work(ABC, Generic[R]):
    """Something to compute for one address with given meta-parameters. Sent to workers, so plain data."""

    @abstractmethod
    def __call__(self, worker: Any, address: TaskAddress, meta: Flat) -> R:
        """Compute it. Depends on its arguments alone. Raises `TaskFailed` if this one task has no result.

        worker : of the `WorkerKind` that the executor was made with.
        """

    @property
    def kind(self) -> str:
        """What takes about the same time everywhere: tasks are late in comparison with others of their kind."""
        return type(self).__name__

    def handed_out(self, address: TaskAddress) -> Work[R]:
        """What is sent to a worker for this address, each time that is. Default: this."""
        return self

    def sent(self, result: R, address: TaskAddress, send: Send) -> R:
        """The result with the gradients in it sent to where they are combined. Default: there are none in it."""
        return result

    def check(self, result: R, meta: Flat) -> None:
        """Is what arrived usable? Raises `ReplyDamaged` or `TaskFailed`, without the address. Default: it is."""


class Send(Protocol):
    """A worker's way to the shards."""

    def __call__(self, address: TaskAddress, result: TaskResult) -> TaskResult:
        """The result without its gradient, whose parts are with the shards, checked. Raises as `Work.check`."""
        ...


class SendToShards(Send, Protocol):
    """Where a shard may end: a config has that drill only where there are shards."""

    def end_one(self) -> None:
        """End the first shard: a drill."""
        ...


@dataclass(frozen=True)
class Parameters:
    """Meta-parameters as they are broadcast. `version` is their checksum; a reply carries it back."""

    flat: Flat
    version: str

    @classmethod
    def of(cls, flat: Flat) -> Parameters:
        """With the version that belongs to them."""
        return cls(flat, checksum(flat))


@dataclass(frozen=True)
class PartedMeta:
    """The meta-parameters as executors take them where they lie in parts (`metacl.coordination.meta_state`).

    version : of the first part; all are made together. references : to the `Parameters` of each rank.
    """

    version: str
    references: tuple[Any, ...]


@dataclass(frozen=True)
class PartedGradient:
    """A step's combined gradient that is with the parts, and its norm."""

    norm: float


Meta = Flat | PartedMeta
"""Meta-parameters as an executor takes them."""


@dataclass(frozen=True)
class Reply(Generic[R]):
    """A result, and the version of the parameters it was computed with."""

    version: str
    result: R


@dataclass(frozen=True)
class Done(Generic[R]):
    """A finished piece of work. `staleness`: outer steps taken since it was handed out, where they need not wait."""

    address: TaskAddress
    result: R
    staleness: int = 0


@dataclass(frozen=True)
class TaskResult:
    """One task's meta-gradient (P,) with the losses on the way and checksums of the gradient's bytes.

    gradient : None once its parts are with the shards that combine it.
    checksums : one a shard (`workers.gradient_shards`), of its range.
    norm : of the gradient.
    examples : query examples that the gradient is of.
    estimator_error : relative distance of the gradient from the exact one, where the estimator is monitored.
    compile_seconds : what of its time went into compiling, for it and for all later tasks of its shapes.
    """

    gradient: Flat | None
    checksums: tuple[str, ...]
    query_loss: float
    support_losses: tuple[float, ...]
    examples: int = 1
    norm: float | None = None
    estimator_error: float | None = None
    compile_seconds: float = 0.0

    @property
    def whole(self) -> Flat:
        """The gradient, which is here."""
        assert self.gradient is not None, "its parts are with the shards"
        return self.gradient

    def not_finite(self) -> TaskFailed:
        """What is to be said of it if it is not."""
        return TaskFailed(
            f"the meta-gradient is not finite (query loss {self.query_loss}, support losses "
            f"{list(self.support_losses)}). Lower inner.step_size or set outer.clip_norm"
        )


@dataclass(frozen=True)
class MetaGradientWork(Work[TaskResult]):
    """The meta-gradient of one training task."""

    def __call__(self, worker: Worker, address: TaskAddress, meta: Flat) -> TaskResult:
        """Make the episode, run the inner loop, estimate the gradient. Raises `TaskFailed` on divergence."""
        config = worker.config
        task = worker.task(address)
        params = as_leaves(worker.parameters(meta))
        problem = config.objective.problem(worker.learner, params, task, config.inner)
        compiled = compile_seconds(problem)
        try:
            estimate = config.estimator.estimate(problem)
            monitored = config.estimator.monitored(address.step, address.index)
            exact = Reverse().estimate(problem).gradient if monitored else None
        except InnerLoopDiverged as error:
            raise TaskFailed(
                f"{error}. Lower inner.step_size.value (now {config.inner.step_size.value}) "
                f"or outer.learning_rate (now {config.outer.learning_rate})."
            ) from None
        return self.result(worker, task, estimate, exact, compile_seconds(problem) - compiled)

    @staticmethod
    def result(
        worker: Worker, task: Task, estimate: MetaGradientResult, exact: Params | None = None, compiled_s: float = 0.0
    ) -> TaskResult:
        """What is sent of an estimate; `exact` is the exact gradient where the estimator is monitored."""
        partition = worker.partition
        gradient = worker.layout.flatten(estimate.gradient)
        return TaskResult(
            gradient,
            checksums(gradient, worker.config.workers.gradient_shards),
            estimate.query_loss,
            tuple(estimate.support_losses),
            len(task.query),
            partition.norm(estimate.gradient.items()) if partition.shapes else euclidean_norm(gradient),
            None if exact is None else relative_distance(estimate.gradient, exact, partition),
            compiled_s,
        )

    def check(self, result: TaskResult, meta: Flat) -> None:
        """Bytes as they were sent, one number a meta-parameter, all finite. The shards have checked what is theirs."""
        finite = math.isfinite(result.query_loss)
        if result.gradient is not None:
            gradient = result.gradient
            if gradient.dtype != np.float32 or gradient.shape != meta.shape:
                came = f"{gradient.shape} numbers of {gradient.dtype}"
                raise ReplyDamaged(f"{came} came back for {meta.shape} of float32")
            ranges = cuts(gradient.size, len(result.checksums))
            found = [examine(gradient[where], sha) for where, sha in zip(ranges, result.checksums, strict=True)]
            if not all(sound for sound, _ in found):
                raise ReplyDamaged(DAMAGED)
            finite = finite and all(all_finite for _, all_finite in found)
        if not finite:
            raise result.not_finite()

    def sent(self, result: TaskResult, address: TaskAddress, send: Send) -> TaskResult:
        """Its gradient."""
        return send(address, result)


def checksums(gradient: Flat, shards: int) -> tuple[str, ...]:
    """One a shard."""
    return tuple(checksum(gradient[where]) for where in cuts(gradient.size, shards))


@dataclass(frozen=True)
class MakeAhead(Work[None]):
    """All of a training task that does not depend on the parameters: sampling, tokenizing, the frozen layers."""

    def __call__(self, worker: Worker, address: TaskAddress, meta: Flat) -> None:
        """The worker keeps it. What is wrong with the task will be said when it is computed."""
        with contextlib.suppress(MetaclError):
            worker.make_ahead(address)


def compile_seconds(problem: InnerProblem) -> float:
    """Spent so far on compiling for problems of its kind."""
    return 0.0 if problem.traced is None else problem.traced.compile_seconds


def relative_distance(found: Params, expected: Params, partition: Partition) -> float:
    """‖found − expected‖ / ‖expected‖ over all ranks; 0 where both are zero, infinite where only `expected` is."""
    distance = partition.norm((name, found[name].double() - expected[name]) for name in expected)
    size = partition.norm(expected.items())
    return distance / size if size else math.inf if distance else 0.0
