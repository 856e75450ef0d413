"""What one rank needs to compute any task: built from the config alone, knowing nothing of who asks.

A worker makes its own episodes from addresses and never calls back. Executors differ only in where the
workers live; `Work` is what is asked of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch

from metacl.config import RunConfig
from metacl.coordination.flat import Flat, FlatLayout, checksum
from metacl.errors import TrainingError
from metacl.learners.base import Params, as_leaves, use_threads
from metacl.learners.engine import Engine
from metacl.metagradients import InnerLoopDiverged, Reverse
from metacl.tasks import TaskAddress

R_co = TypeVar("R_co", covariant=True)


class Worker:
    """A model, a data set and the four choices of the algorithm, ready to compute tasks."""

    def __init__(self, config: RunConfig, engine: Engine | None = None) -> None:
        device = torch.device("cuda" if config.workers.gpus_per_group else "cpu")
        use_threads(config.workers.threads)
        self.config = config
        self.source = config.data.open()
        self.learner = config.learner.build(config.seed, device, engine)
        self.initial: Params = config.objective.meta_parameters(self.learner, config.inner, config.episodes.ways)
        self.layout = FlatLayout.of(self.initial)

    def parameters(self, meta: Flat) -> Params:
        """The buffer as named tensors on this worker's device."""
        return {name: tensor.to(self.learner.device) for name, tensor in self.layout.unflatten(meta).items()}


class Work(Protocol[R_co]):
    """Something to compute for one address with given meta-parameters. Sent to workers, so plain data."""

    def __call__(self, worker: Worker, address: TaskAddress, meta: Flat) -> R_co:
        """Compute it. Depends on its arguments alone."""
        ...


@dataclass(frozen=True)
class Done(Generic[R_co]):
    """A finished piece of work."""

    address: TaskAddress
    result: R_co


@dataclass(frozen=True)
class TaskResult:
    """One task's meta-gradient (P,) with the losses on the way and a checksum of the gradient's bytes.

    estimator_error : relative distance of the gradient from the exact one, where the estimator is monitored.
    """

    gradient: Flat
    checksum: str
    query_loss: float
    support_losses: tuple[float, ...]
    estimator_error: float | None = None


@dataclass(frozen=True)
class MetaGradientWork:
    """The meta-gradient of one training task."""

    def __call__(self, worker: Worker, address: TaskAddress, meta: Flat) -> TaskResult:
        """Make the episode, run the inner loop, estimate the gradient. Raises `TrainingError` on divergence."""
        config = worker.config
        task = worker.learner.prepare(worker.source.episode(address, config.episodes))
        params = as_leaves(worker.parameters(meta))
        problem = config.objective.problem(worker.learner, params, task, config.inner)
        try:
            estimate = config.estimator.estimate(problem)
            monitored = config.estimator.monitored(address.step, address.index)
            exact = Reverse().estimate(problem).gradient if monitored else None
        except InnerLoopDiverged as error:
            raise TrainingError(
                f"task {address}: {error}. Lower inner.step_size.value (now {config.inner.step_size.value}) "
                f"or outer.learning_rate (now {config.outer.learning_rate})."
            ) from None
        gradient = worker.layout.flatten(estimate.gradient)
        return TaskResult(
            gradient,
            checksum(gradient),
            estimate.query_loss,
            tuple(estimate.support_losses),
            None if exact is None else relative_distance(gradient, worker.layout.flatten(exact)),
        )


def relative_distance(found: Flat, expected: Flat) -> float:
    """‖found − expected‖ / ‖expected‖ in float64; 0 where both are zero, infinite where only `expected` is."""
    distance, size = float(np.linalg.norm(found.astype(np.float64) - expected)), float(np.linalg.norm(expected))
    return distance / size if size else math.inf if distance else 0.0
