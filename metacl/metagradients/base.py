"""The meta-gradient problem of one task, and what an estimator of its gradient promises.

For meta-parameters φ (what is learned, step sizes η included) and one task:
θ_0 = start(φ), θ_{k+1} = step(θ_k, s_k, ∇L_S(θ_k) + λ(θ_k − θ_0); η), and the wanted gradient is g = d L_Q(θ_K) / dφ.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from metacl.adaptation import InnerLoop, State
from metacl.learners.base import Learner, Params
from metacl.learners.partition import Partition
from metacl.metagradients.along import asked_along
from metacl.metagradients.traced import TracedProblem
from metacl.registry import Component, Registry


@dataclass
class InnerProblem:
    """One task, as functions of tensors alone; nothing in it knows about models or text.

    Attributes
    ----------
    meta : Params
        φ, leaf tensors that require gradients.
    start : φ -> θ_0
        Differentiable in φ.
    support_loss : (θ, φ, k) -> scalar
        What step k descends.
    query_loss : (θ, φ) -> scalar
        What is asked of the adapted parameters.
    loop : InnerLoop
        Steps, optimizer, step sizes.
    traced, data : optional
        The same functions with the task's tensors as an argument, and those tensors, for estimators that compile.
        Gone once one of the functions is replaced: they are no longer the same.
    ascending : names of tensors of θ, optional
        Those that climb the support loss: the adversary of a saddle-point problem.
    along : (θ_k, φ, k) -> scalar or None, optional
        What is asked on the way, of θ_0 … θ_{K−1}, and added to the query loss; None where nothing is.
    outer_step : int
        How far training is, for what is annealed.
    partition : Partition
        Which tensors of θ and φ are parts; lengths and inner products go by it.
    """

    meta: Params
    start: Callable[[Params], Params]
    support_loss: Callable[[Params, Params, int], Tensor]
    query_loss: Callable[[Params, Params], Tensor]
    loop: InnerLoop
    traced: TracedProblem | None = None
    data: tuple[Tensor, ...] = ()
    ascending: frozenset[str] = frozenset()
    along: Callable[[Params, Params, int], Tensor | None] | None = None
    outer_step: int = 0
    partition: Partition = field(default_factory=Partition)
    traced_from: tuple[object, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        functions = (self.start, self.support_loss, self.query_loss)
        self.traced_from = self.traced_from or functions
        if any(now is not then for now, then in zip(functions, self.traced_from, strict=True)):
            self.traced, self.data = None, ()

    def displacement(
        self, theta: Params, grads: Params, state: State, start: Params, step: int
    ) -> tuple[Params, State]:
        """θ_k − θ_{k+1} and s_{k+1} from θ_k, the support gradient there, s_k and θ_0."""
        names = list(theta)
        grads = direction(self, grads, theta, start)
        rates = self.partition.rates(self.loop.rates(self.meta, names, step))
        return self.loop.optimizer.displacement(theta, grads, state, rates, step)


@dataclass
class MetaGradientResult:
    """g for every meta-parameter (zeros where the query loss does not depend on it), and the losses on the way.

    `query_loss` is what g is the gradient of: what was asked on the way is in it.
    """

    gradient: Params
    query_loss: float
    support_losses: list[float] = field(default_factory=list)


class InnerLoopDiverged(Exception):
    """A support loss stopped being finite. Carries the losses up to and with the bad one."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__(f"the support loss is {losses[-1]} at inner step {len(losses) - 1}; losses so far: {losses}")
        self.losses = losses


class MetaGradient(Component):
    """A way to compute or approximate g. Stateless; one object serves every task.

    Class attributes declare what it is, so that a config asking for the impossible is refused before training.

    Attributes
    ----------
    order : int
        Highest derivative of the support loss that enters g.
    exact : bool
        Whether g is the derivative of the adapted query loss, but for rounding.
    needs_double_backward : bool
        Whether the support loss is differentiated twice by autograd (fused attention cannot be).
    sharding_stages : frozenset of int
        ZeRO stages of the frozen base that it works with.
    sees_path : bool
        Whether what is asked of θ_k on the way enters g. Default: yes.
    side_by_side : bool
        Whether g of a sum over tasks with parameters of their own is the tasks' own gradients: true where nothing is
        normalized or iterated over all tensors together. Default: no.
    takes_parts : bool
        Whether θ may lie in parts, one a rank: whatever is taken over all its numbers is taken by
        `InnerProblem.partition`. Default: no.
    """

    order: ClassVar[int]
    exact: ClassVar[bool]
    needs_double_backward: ClassVar[bool]
    sharding_stages: ClassVar[frozenset[int]]
    sees_path: ClassVar[bool] = True
    side_by_side: ClassVar[bool] = False
    takes_parts: ClassVar[bool] = False

    @abstractmethod
    def estimate(self, problem: InnerProblem) -> MetaGradientResult:
        """Compute g for one task. Raises `InnerLoopDiverged`."""

    @property
    def wants_few_shapes(self) -> bool:
        """Whether batches of ever new shapes would cost it dearly: it compiles for each. Default: no."""
        return False

    def uncompiled(self) -> MetaGradient:
        """The same estimator, compiling nothing. Default: itself."""
        return self

    def check_loop(self, loop: InnerLoop) -> None:
        """Raise `ConfigError` if this inner loop cannot be differentiated this way. Called when a config is read."""

    def check_learner(self, learner: Learner) -> None:
        """Raise `ConfigError` if this model cannot be differentiated this way. Called before training starts."""

    def monitored(self, step: int, index: int) -> bool:
        """Whether g of task `index` of outer step `step` is to be compared with the exact one. Default: never."""
        return False


ESTIMATORS: Registry[MetaGradient] = Registry("meta-gradient estimator", "estimator")

InnerGradient = Callable[[Params, Params, int], tuple[Tensor, Params]]
"""(θ, φ, k) -> support loss (detached) and its gradient in θ."""


@dataclass
class InnerState:
    """Where an inner loop stands: θ_k and the support losses of steps 0 … k−1."""

    theta: Params
    losses: list[float]


def trajectory(
    problem: InnerProblem, gradient: InnerGradient, theta: Params, moving: Callable[[Params], object] | None = None
) -> Iterator[InnerState]:
    """θ_0 = `theta`, θ_1, … θ_K, one at a time. Whether the walk is differentiable depends on `gradient` alone.

    The loop's proximal term, if any, is descended too: its gradient λ(θ_k − θ_0) is added to `gradient`'s. `moving` is
    shown every θ_k − θ_{k+1}.

    Raises `InnerLoopDiverged` on the first support loss that is not finite.
    """
    start = theta
    state: State = {}
    losses: list[float] = []
    yield InnerState(theta, [])
    for step in range(problem.loop.steps):
        loss, grads = gradient(theta, problem.meta, step)
        losses.append(float(loss))
        if not math.isfinite(losses[-1]):
            raise InnerLoopDiverged(losses)
        moved, state = problem.displacement(theta, grads, state, start, step)
        if moving is not None:
            moving(moved)
        del grads
        theta = {name: tensor - moved.pop(name) for name, tensor in theta.items()}  # never a θ more at a time
        yield InnerState(theta, list(losses))


def direction(problem: InnerProblem, grads: Params, theta: Params, start: Params) -> Params:
    """What the inner optimizer descends, from the support gradient: signs, the proximal pull, the preconditioner."""
    if problem.ascending:
        grads = {name: -grad if name in problem.ascending else grad for name, grad in grads.items()}
    if pull := problem.loop.proximal:
        grads = {name: grad + pull * (theta[name] - start[name]) for name, grad in grads.items()}
    return problem.loop.preconditioned(problem.meta, grads)


def adapt(
    problem: InnerProblem, gradient: InnerGradient, theta: Params, moving: Callable[[Params], object] | None = None
) -> InnerState:
    """The end of the `trajectory`."""
    *_, last = trajectory(problem, gradient, theta, moving)
    return last


def plain_gradient(problem: InnerProblem) -> InnerGradient:
    """The support gradient as a constant: no graph is kept, derivatives stop here."""

    def gradient(theta: Params, meta: Params, step: int) -> tuple[Tensor, Params]:
        with torch.enable_grad():
            leaves = {name: tensor.detach().requires_grad_(True) for name, tensor in theta.items()}
            fixed = {name: tensor.detach() for name, tensor in meta.items()}
            loss = problem.support_loss(leaves, fixed, step)
            grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return loss.detach(), dict(zip(leaves, grads, strict=True))

    return gradient


def through_the_walk(problem: InnerProblem, gradient: InnerGradient) -> MetaGradientResult:
    """Adapt with `gradient`, ask the query, and let autograd go back as far as `gradient` can be differentiated."""
    asked: list[Tensor] = []
    for step, state in enumerate(trajectory(problem, gradient, problem.start(problem.meta))):
        if problem.along is not None and step < problem.loop.steps:
            asked += asked_along(problem.along, state.theta, problem.meta, step)
    asked.append(problem.query_loss(state.theta, problem.meta))
    total = torch.stack(asked).sum() if len(asked) > 1 else asked[0]
    return MetaGradientResult(gradient_of(total, problem.meta), float(total.detach()), state.losses)


def gradient_of(loss: Tensor, meta: Params) -> Params:
    """d loss / d meta with zeros where there is no dependence."""
    grads = torch.autograd.grad(loss, list(meta.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(meta, grads, strict=True))


def through_start(start: Params, cotangents: Params, meta: Params) -> Params:
    """Σ cotangentᵀ · d θ_0 / d meta, with zeros where there is no dependence. `start` is θ_0 with its graph."""
    live = [name for name, tensor in start.items() if tensor.requires_grad]
    if not live:
        return {name: torch.zeros_like(tensor) for name, tensor in meta.items()}
    grads = torch.autograd.grad(
        [start[name] for name in live],
        list(meta.values()),
        [cotangents[name] for name in live],
        allow_unused=True,
        materialize_grads=True,
    )
    return dict(zip(meta, grads, strict=True))
