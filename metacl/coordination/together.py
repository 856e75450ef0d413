"""Several tasks of one step as one piece of work, computed side by side (`workers.tasks_per_forward`).

Which tasks go together follows from their addresses alone, so it does not depend on how many groups there are. A task
that has no usable result in company is computed again alone; what is wrong with one is not laid at the others' door.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from metacl.coordination.executor import Executor, LeftOut
from metacl.coordination.flat import Flat
from metacl.coordination.worker import (
    Done,
    Meta,
    MetaGradientWork,
    Send,
    TaskFailed,
    TaskResult,
    Work,
    Worker,
    compile_seconds,
)
from metacl.learners.base import as_leaves
from metacl.metagradients import InnerLoopDiverged, estimate_side_by_side
from metacl.tasks import TaskAddress

Outcome = TaskResult | str
"""A usable result, or why there is none."""


@dataclass(frozen=True)
class Together(Work[tuple[Outcome, ...]]):
    """The meta-gradients of the tasks at `address` and after it, by index; `bundles` says how many each time."""

    bundles: dict[TaskAddress, tuple[TaskAddress, ...]]

    def handed_out(self, address: TaskAddress) -> Work[tuple[Outcome, ...]]:
        """This one's tasks only."""
        return Together({address: self.bundles[address]})

    def __call__(self, worker: Worker, address: TaskAddress, meta: Flat) -> tuple[Outcome, ...]:
        """One outcome a task, in the order of their addresses."""
        members, config, single = self.bundles[address], worker.config, MetaGradientWork()
        params = as_leaves(worker.parameters(meta))
        tasks = [worker.task(member) for member in members]
        problems = [config.objective.problem(worker.learner, params, task, config.inner) for task in tasks]
        different = list({id(problem.traced): problem for problem in problems}.values())
        compiled = sum(map(compile_seconds, different))
        try:
            found = estimate_side_by_side(config.estimator, problems)
        except InnerLoopDiverged:
            return tuple(self._alone(worker, member, meta) for member in members)
        results = [single.result(worker, task, one) for task, one in zip(tasks, found, strict=True)]
        results[0] = replace(results[0], compile_seconds=sum(map(compile_seconds, different)) - compiled)
        return tuple(
            result if _usable(result, meta) else self._alone(worker, member, meta)
            for member, result in zip(members, results, strict=True)
        )

    def check(self, result: tuple[Outcome, ...], meta: Flat) -> None:
        """Each task's as `MetaGradientWork.check` has it."""
        for outcome in result:
            if isinstance(outcome, TaskResult):
                MetaGradientWork().check(outcome, meta)

    def sent(self, result: tuple[Outcome, ...], address: TaskAddress, send: Send) -> tuple[Outcome, ...]:
        """Each task's gradient."""
        members = zip(self.bundles[address], result, strict=True)
        return tuple(send(member, one) if isinstance(one, TaskResult) else one for member, one in members)

    @staticmethod
    def _alone(worker: Worker, address: TaskAddress, meta: Flat) -> Outcome:
        work = MetaGradientWork()
        try:
            result = work(worker, address, meta)
            work.check(result, meta)
        except TaskFailed as error:
            return str(error)
        return result


def map_together(
    executor: Executor, addresses: Sequence[TaskAddress], count: int, meta: Meta, left_out: LeftOut
) -> Iterator[Done[TaskResult]]:
    """As `Executor.map` of `MetaGradientWork`, `count` neighbouring addresses at a time."""
    bundles = {addresses[begin]: tuple(addresses[begin : begin + count]) for begin in range(0, len(addresses), count)}

    def all_left_out(address: TaskAddress, reason: str) -> None:
        for member in bundles[address]:
            left_out(member, reason)

    for done in executor.map(Together(bundles), list(bundles), meta, all_left_out):
        for member, outcome in zip(bundles[done.address], done.result, strict=True):
            if isinstance(outcome, str):
                left_out(member, outcome)
            else:
                yield Done(member, outcome)


def _usable(result: TaskResult, meta: Flat) -> bool:
    try:
        MetaGradientWork().check(result, meta)
    except TaskFailed:
        return False
    return True
