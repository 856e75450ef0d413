"""Where a run stands, in a line: how far, how fast, how long still.

Speed and time left come from what this session did, so a resumed run does not count steps it did not take. Times
are seconds on any steady clock.
"""

from __future__ import annotations

from typing import Protocol

from metacl.coordination.step import StepMetrics
from metacl.reporting.wording import duration


class Standing(Protocol):
    """Something that goes on and ends."""

    title: str

    def fraction(self) -> float | None:
        """How much of it is done, 0 to 1; None while that is not known."""
        ...

    def line(self, now: float) -> str:
        """Where it stands."""
        ...


class Training:
    """The outer loop."""

    title = "training"

    def __init__(self) -> None:
        self._step = 0
        self._task, self._of = 0, 0
        self._steps: int | None = None
        self._latest: StepMetrics | None = None
        self._steps_taken = 0
        self._tasks_taken = 0
        self._started = 0.0
        self._step_done_at = 0.0

    def task_done(self, step: int, done: int, of: int) -> None:
        """`done` of `of` tasks are back for the step after `step` finished ones."""
        self._step, self._task, self._of = step, done, of

    def step_done(self, metrics: StepMetrics, steps: int, now: float) -> None:
        """One more step is taken, of `steps`."""
        if self._latest is None:
            self._started = now - metrics.seconds
        self._step, self._task, self._steps = metrics.step, 0, steps
        self._steps_taken += 1
        self._tasks_taken += metrics.tasks
        self._step_done_at = now
        self._latest = metrics  # last: a display reads this from another thread, and asks for it first

    @property
    def finished(self) -> bool:
        """All steps are taken."""
        return self._step == self._steps

    def fraction(self) -> float | None:
        """Known once a step is done: only then is it known how many there are."""
        if self._steps is None:
            return None
        return (self._step + (self._task / self._of if self._of else 0.0)) / self._steps

    def line(self, now: float) -> str:
        """Step, task, tasks per minute, losses of the latest step, time left."""
        return " · ".join([self._place(), *self._speed(), *self._losses(), *self._time_left(now)])

    def _place(self) -> str:
        of_steps = "" if self._steps is None else f"/{self._steps}"
        if self._task == 0:
            return f"step {self._step}{of_steps} done"
        return f"step {self._step + 1}{of_steps}, task {self._task}/{self._of}"

    def _speed(self) -> list[str]:
        spent = self._step_done_at - self._started
        return [f"{60 * self._tasks_taken / spent:.1f} tasks/min"] if spent > 0 else []

    def _losses(self) -> list[str]:
        if self._latest is None:
            return []
        losses = [f"query loss {self._latest.query_loss:.3f}"]
        first, last = self._latest.support_loss_first, self._latest.support_loss_last
        if first is not None and last is not None:
            losses.append(f"support loss {first:.3f} → {last:.3f}")
        return losses

    def _time_left(self, now: float) -> list[str]:
        if self._latest is None or self._steps is None or self.finished:
            return []
        per_step = (self._step_done_at - self._started) / self._steps_taken
        left = per_step * (self._steps - self._latest.step) - (now - self._step_done_at)
        return [f"{duration(max(left, 0.0))} left"]


class Evaluating:
    """An evaluation that began at `started`."""

    title = "evaluating"

    def __init__(self, started: float) -> None:
        self._started = started
        self._done, self._of = 0, 1
        self._done_at = started

    def episodes_done(self, done: int, of: int, now: float) -> None:
        """`done` of `of` episodes are scored."""
        self._done, self._of, self._done_at = done, of, now

    @property
    def finished(self) -> bool:
        """All episodes are scored."""
        return self._done == self._of

    def fraction(self) -> float:
        """Always known."""
        return self._done / self._of

    def line(self, now: float) -> str:
        """Episode, episodes per minute, time left."""
        parts = [f"episode {self._done}/{self._of}{' done' if self.finished else ''}"]
        spent = self._done_at - self._started
        if spent > 0:
            parts.append(f"{60 * self._done / spent:.1f} episodes/min")
            if not self.finished:
                left = spent / self._done * (self._of - self._done) - (now - self._done_at)
                parts.append(f"{duration(max(left, 0.0))} left")
        return " · ".join(parts)
