"""Checking a meta-objective: its functions must be pure and differentiable all the way to the meta-parameters."""

from __future__ import annotations

from typing import Any

from metacl.adaptation import InnerLoop
from metacl.metagradients import Reverse
from metacl.testing.oracle import Report, adapted_query_loss, compare
from metacl.testing.tiny import LOOP, TinyLearner, spread


def check_objective(objective: Any, ways: int = 3, loop: InnerLoop = LOOP, tolerance: float = 1e-6) -> Report:
    """Hold the meta-gradient of an objective, by the exact `reverse`, against finite differences of its losses.

    What fails is an objective that detaches something, keeps state between calls, draws random numbers, or starts
    with other tensors than `inner_names` promises. What it learns but never uses stands in the notes.

    Parameters
    ----------
    objective : MetaObjective, or any object with its methods
        Tried on a tiny text learner with features.
    ways : int
        N of the task.
    loop : InnerLoop
        Default: three steps with momentum, learned step sizes and a proximal term.
    tolerance : float
        Relative, of every meta-parameter.

    Returns
    -------
    Report
        Its `verdict` is for reading.

    Raises
    ------
    CheckFailed
        Any of these.
    """
    subject, claim = type(objective).__name__, f"Tried with {ways} ways and {loop.steps} inner steps."
    learner = TinyLearner()
    meta = spread(objective.meta_parameters(learner, loop, ways))
    problem = objective.problem(learner, meta, learner.task(ways), loop)
    start, promised = list(problem.start(meta)), objective.inner_names(objective.learned(learner, ways))
    if sorted(start) != sorted(promised):
        failure = f"start has the tensors {', '.join(start)}; inner_names promises {', '.join(promised)}"
        return Report(subject, claim, tolerance, {}, 0.0, (failure,)).or_raise()
    failures = []
    if adapted_query_loss(problem, meta) != adapted_query_loss(problem, meta):
        failures.append("the adapted query loss is another one the second time; it must depend on arguments alone")
    return compare(subject, claim, tolerance, Reverse().estimate(problem).gradient, problem, failures).or_raise()
