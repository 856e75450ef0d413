"""Early stopping on held-out tasks: the query loss on tasks of the valid classes says which parameters are the best.

The tasks are the same every time, addresses (valid, seed, 0, 0 … tasks − 1), so the losses can be compared.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from metacl.config import HeldOut, RunConfig
from metacl.coordination.executor import Executor
from metacl.coordination.flat import Flat
from metacl.coordination.step import mean
from metacl.coordination.worker import Meta, TaskFailed, Work, Worker
from metacl.learners.base import as_leaves
from metacl.metagradients import InnerLoopDiverged, adapt, plain_gradient
from metacl.tasks import TaskAddress


@dataclass(frozen=True)
class HeldOutLoss(Work[float]):
    """The query loss of one task after adapting to its support set; no meta-gradient."""

    def __call__(self, worker: Worker, address: TaskAddress, meta: Flat) -> float:
        """Make the episode, run the inner loop, ask the query. Raises `TaskFailed` if it diverges."""
        config = worker.config
        task = worker.learner.prepare(worker.source.episode(address, config.episodes))
        problem = config.objective.problem(worker.learner, as_leaves(worker.parameters(meta)), task, config.inner)
        try:
            end = adapt(problem, plain_gradient(problem), problem.start(problem.meta))
        except InnerLoopDiverged as error:
            raise TaskFailed(str(error)) from None
        return float(problem.query_loss(end.theta, problem.meta).detach())

    def check(self, result: float, meta: Flat) -> None:
        """It is a number."""
        if not math.isfinite(result):
            raise TaskFailed(f"the query loss is {result}")


@dataclass(frozen=True)
class HeldOutState:
    """How it went so far; saved with every checkpoint. Steps count the outer steps taken, -1: none measured yet."""

    measured_at: int = -1
    best_step: int = -1
    best_loss: float | None = None
    without_gain: int = 0

    def after(self, step: int, loss: float) -> HeldOutState:
        """One more measurement. A loss that is not finite is no gain."""
        if math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss):
            return HeldOutState(step, step, loss, 0)
        return replace(self, measured_at=step, without_gain=self.without_gain + 1)

    def due(self, held_out: HeldOut, step: int, steps: int) -> bool:
        """Whether the parameters after `step` of `steps` outer steps are to be measured now."""
        return self.measured_at < step and (step % held_out.every == 0 or step == steps)

    def stops(self, held_out: HeldOut) -> bool:
        """Whether training ends here."""
        return held_out.patience is not None and self.without_gain >= held_out.patience

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a checkpoint."""
        return asdict(self)


def held_out_loss(config: RunConfig, held_out: HeldOut, executor: Executor, meta: Meta) -> float:
    """Mean query loss over the held-out tasks; infinite if one of them diverges."""
    addresses = [TaskAddress("valid", config.seed, 0, index) for index in range(held_out.tasks)]
    try:
        losses = {done.address: done.result for done in executor.map(HeldOutLoss(), addresses, meta)}
    except TaskFailed:
        return math.inf
    return mean([losses[address] for address in addresses])
