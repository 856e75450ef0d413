"""Checking a meta-gradient estimator against finite differences and against what it declares."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from metacl.adaptation import InnerLoop
from metacl.learners.base import Params
from metacl.metagradients import InnerLoopDiverged, InnerProblem
from metacl.testing.oracle import Report, adapted_query_loss, compare
from metacl.testing.tiny import LOOP, tiny_problem

DECLARATIONS = ("order", "exact", "needs_double_backward", "sharding_stages")


def check_estimator(estimator: Any, loop: InnerLoop = LOOP, tolerance: float = 1e-6) -> Report:
    """Hold an estimator against finite differences of the adapted query loss, and against its declarations.

    Parameters
    ----------
    estimator : MetaGradient, or any object with its attributes and `estimate`
        If it declares ``exact = True``, its gradient must be right to `tolerance`; else it must be finite.
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
        A wrong gradient or query loss, a declaration that is missing or not true, other bits the second time, or
        an inner loop that leaves the numbers without `InnerLoopDiverged`.
    """
    subject = type(estimator).__name__
    missing = [name for name in DECLARATIONS if not hasattr(estimator, name)]
    if missing:
        failure = f"{', '.join(missing)} not declared; set them as class attributes, as MetaGradient describes"
        return Report(subject, "It does not say what it is.", None, {}, 0.0, (failure,)).or_raise()
    claim = f"It declares an {'exact' if estimator.exact else 'approximate'} gradient of order {estimator.order}."
    problem = tiny_problem(loop)
    result = estimator.estimate(problem)
    failures = []
    truth = adapted_query_loss(problem, problem.meta)
    if not abs(result.query_loss - truth) <= 1e-9 * abs(truth):
        failures.append(f"the query loss it reports is {result.query_loss}; that of the adapted parameters is {truth}")
    again = estimator.estimate(problem).gradient
    if any(name in again and not torch.equal(again[name], tensor) for name, tensor in result.gradient.items()):
        failures.append("a second estimate has other bits; it must be a function of the problem alone")
    failures += _double_backward_failures(estimator, problem) + _divergence_failures(estimator, problem)
    allowed = tolerance if estimator.exact else None
    return compare(subject, claim, allowed, result.gradient, problem, failures).or_raise()


class _OnceOnly(torch.autograd.Function):
    """The identity, with a first derivative and no second, as fused attention has.

    Not by `once_differentiable`: it cuts the graph, and a second derivative that need not pass there is silently zero.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _NoFurther.apply(gradient)


class _NoFurther(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise RuntimeError("there is no second derivative here")


def _double_backward_failures(estimator: Any, problem: InnerProblem) -> list[str]:
    if estimator.needs_double_backward:
        return []

    def support_loss(theta: Params, phi: Params, step: int) -> Tensor:
        return problem.support_loss({name: _OnceOnly.apply(tensor) for name, tensor in theta.items()}, phi, step)

    try:
        estimator.estimate(replace(problem, support_loss=support_loss))
    except RuntimeError as error:
        return [f"needs_double_backward is declared False, but without second derivatives it ends in: {error}"]
    return []


def _divergence_failures(estimator: Any, problem: InnerProblem) -> list[str]:
    def support_loss(theta: Params, phi: Params, step: int) -> Tensor:
        return problem.support_loss(theta, phi, step) * (float("inf") if step == 1 else 1.0)

    try:
        estimator.estimate(replace(problem, support_loss=support_loss))
    except InnerLoopDiverged:
        return []
    return ["an infinite support loss at step 1 went through; raise InnerLoopDiverged, as `trajectory` does"]
