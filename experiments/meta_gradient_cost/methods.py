"""How the meta-gradient is had: metacl's estimators, and the plain loops they are held against.

A method is a function from a case to the mean gradient over its tasks. The libraries stand in peers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import peers
import torch
from models import Case
from torch import Tensor

from metacl.learners import Params
from metacl.metagradients import (
    FiniteDifference,
    FirstOrder,
    InnerProblem,
    MetaGradient,
    Reverse,
    Unrolled,
    estimate_side_by_side,
)

MetaStep = Callable[[Case], Params]


@dataclass(frozen=True)
class Method:
    """One row of the table.

    kind : "ours", "peer" (same gradient by other means) or "floor" (a loop by hand that a bar is set against).
    exact : whether it is the gradient but for rounding.
    library : what it needs from the peers' environment, if anything.
    cases : where it can be used.
    """

    label: str
    kind: str
    exact: bool
    step: MetaStep
    library: str | None = None
    cases: tuple[str, ...] = ("a", "b", "c")


def estimator(chosen: MetaGradient) -> MetaStep:
    """One of metacl's estimators on metacl's own description of the tasks."""
    return lambda case: _mean(chosen.estimate(problem()).gradient for problem in case.ours)


def side_by_side(chosen: MetaGradient) -> MetaStep:
    """One of metacl's estimators on all tasks of the meta-step in one forward."""

    def step(case: Case) -> Params:
        problems = [problem() for problem in case.ours]
        return _mean(result.gradient for result in estimate_side_by_side(chosen, problems))

    return step


def by_task(gradient: Callable[[InnerProblem, float], Params]) -> MetaStep:
    """A gradient of one task, task after task, on the plain description."""
    return lambda case: _mean(gradient(problem, case.rate) for problem in case.plain)


def plain_unroll(problem: InnerProblem, rate: float) -> Params:
    """Ten lines of torch: keep every inner graph and let autograd go back through all of them."""
    # Clones: a gradient in θ_0 is not to run through other parts of θ_0 that are made from the same φ.
    theta = {name: tensor.clone() for name, tensor in problem.start(problem.meta).items()}
    for step in range(problem.loop.steps):
        loss = problem.support_loss(theta, problem.meta, step)
        grads = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        theta = {name: value - rate * grad for (name, value), grad in zip(theta.items(), grads, strict=True)}
    return _gradient(problem.query_loss(theta, problem.meta), problem.meta)


def first_order_loop(problem: InnerProblem, rate: float) -> Params:
    """First order by hand, with nothing that could be left out: K + 1 gradients and in-place steps."""
    start = problem.start(problem.meta)
    theta = {name: tensor.detach().clone().requires_grad_(True) for name, tensor in start.items()}
    leaves = list(theta.values())
    for step in range(problem.loop.steps):
        grads = torch.autograd.grad(problem.support_loss(theta, problem.meta, step), leaves)
        with torch.no_grad():
            for leaf, grad in zip(leaves, grads, strict=True):
                leaf.sub_(grad, alpha=rate)
    grads = torch.autograd.grad(problem.query_loss(theta, problem.meta), leaves)
    back = torch.autograd.grad(list(start.values()), list(problem.meta.values()), grads)
    return dict(zip(problem.meta, back, strict=True))


def _gradient(loss: Tensor, meta: Params) -> Params:
    return dict(zip(meta, torch.autograd.grad(loss, list(meta.values())), strict=True))


def _mean(gradients: object) -> Params:
    total: Params = {}
    count = 0
    for gradient in gradients:
        count += 1
        total = {name: total[name] + grad for name, grad in gradient.items()} if total else gradient
    return {name: grad / count for name, grad in total.items()}


METHODS: dict[str, Method] = {
    "reverse": Method("reverse", "ours", True, estimator(Reverse())),
    "reverse_all": Method('reverse, allowance "all"', "ours", True, estimator(Reverse(allowance="all"))),
    "reverse_compiled": Method("reverse, compiled", "ours", True, estimator(Reverse(compile=True))),
    "reverse_last_compiled": Method(
        "reverse, allowance 1, compiled", "ours", True, estimator(Reverse(allowance=1, compile=True))
    ),
    "reverse_bf16_compiled": Method(
        "reverse, allowance 1, compiled, bf16 base",
        "ours",
        False,
        lambda case: _mean(Reverse(allowance=1, compile=True).estimate(p()).gradient for p in case.bfloat16),
        cases=("b",),
    ),
    "side_by_side": Method("reverse, tasks side by side", "ours", True, side_by_side(Reverse()), cases=("a", "c")),
    "side_by_side_compiled": Method(
        "reverse, tasks side by side, compiled", "ours", True, side_by_side(Reverse(compile=True)), cases=("a", "c")
    ),
    "reverse_all_compiled": Method(
        'reverse, allowance "all", compiled', "ours", True, estimator(Reverse(allowance="all", compile=True))
    ),
    "one_sided_compiled": Method(
        "finite differences, one-sided, compiled",
        "ours",
        False,
        estimator(FiniteDifference(central=False, compile=True)),
    ),
    "finite_difference": Method("finite differences, central", "ours", False, estimator(FiniteDifference())),
    "one_sided": Method("finite differences, one-sided", "ours", False, estimator(FiniteDifference(central=False))),
    "first_order": Method("first order", "ours", False, estimator(FirstOrder())),
    "plain": Method("plain unroll", "peer", True, by_task(plain_unroll)),
    "higher": Method("higher", "peer", True, by_task(lambda problem, rate: Unrolled().estimate(problem).gradient)),
    "learn2learn": Method("learn2learn", "peer", True, by_task(peers.learn2learn), "learn2learn"),
    "torchopt": Method("TorchOpt", "peer", True, by_task(peers.torchopt), "torchopt"),
    "betty": Method("Betty", "peer", True, peers.betty, "betty"),
    "vmap": Method("torch.func, vmap over tasks", "peer", True, peers.vmap, cases=("a", "c")),
    "first_order_loop": Method("first order, by hand", "floor", False, by_task(first_order_loop)),
}
