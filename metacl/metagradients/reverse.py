"""Exact meta-gradients with memory that does not grow with the number of inner steps.

The inner *gradient* alone is an autograd Function: its forward keeps the parameters and nothing of the
network's graph; its backward replays the step and multiplies by the Hessian, ∇²L_S(θ_k)·u. The optimizer,
the step sizes and the start stay ordinary autograd. Reverse-mode hypergradients: Maclaurin et al. 2015,
"Gradient-based Hyperparameter Optimization through Reversible Learning", alg. 2, with stored θ_k instead
of reversed dynamics; Franceschi et al. 2017, eq. 13.

Where memory allows, the last steps keep their graph and are not replayed: the walk back needs them first.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.autograd.function import once_differentiable

from metacl.metagradients.base import ESTIMATORS, InnerProblem, MetaGradient, MetaGradientResult, through_the_walk
from metacl.metagradients.compiled_walk import CompiledWalk
from metacl.metagradients.inner_gradient import TensorLoss, inner_gradient

PART, PARTS = 0.1, 4
"""A compiled step can hold a part of its graph: a seventh of the memory saves two fifths of the replay, for narrow
tensors that took many operations are held and wide ones are computed again. So many parts go into a graph's memory."""
LAST = 0.3
"""Of the last step's graph, where no other is held: what its way back does not compute again it need not find room for
then, so that this takes no more than the replay of another step does."""


@ESTIMATORS.register("reverse")
class Reverse(MetaGradient):
    """Exact second order; keeps only (θ_k, s_k) and replays each inner step on the way back.

    allowance : inner graphs that may be alive at a time. "one" (default): every step is replayed and memory does not
    grow with the steps; a number: the graphs of that many last steps are kept and not replayed; "all": nothing is
    replayed, for the time and the memory of `unrolled`. The gradient is the same.
    Compiled, the same memory goes to parts of the graphs of more last steps, which saves more: of 4 steps for 1 graph;
    "one" keeps a third of the last step's, which takes no more than the replay of another step does.
    compile : trace and compile the pieces of the walk. Pays where a run has hundreds of tasks of few shapes
    (learner.padding=packed). A support loss of an objective's own is not compiled.
    """

    order: ClassVar[int] = 2
    exact: ClassVar[bool] = True
    needs_double_backward: ClassVar[bool] = True
    sharding_stages: ClassVar[frozenset[int]] = frozenset({0, 1, 2, 3})
    takes_parts: ClassVar[bool] = True
    side_by_side: ClassVar[bool] = True

    allowance: Literal["one", "all"] | PositiveInt = "one"
    compile: bool = False

    @property
    def wants_few_shapes(self) -> bool:
        """When it compiles."""
        return self.compile

    def uncompiled(self) -> Reverse:
        """Without `compile`."""
        return self.model_copy(update={"compile": False})

    def estimate(self, problem: InnerProblem) -> MetaGradientResult:
        """See `MetaGradient.estimate`."""
        steps = problem.loop.steps
        walk = CompiledWalk(problem) if self.compile else None

        def apply(loss_of: TensorLoss, names: list[str], step: int, tensors: list[Tensor]) -> tuple[Tensor, ...]:
            left = steps - step
            if walk and (piece := walk.gradient(tensors)):
                return piece(tensors, self._share_kept(left, steps), walk.memory)
            return _ReplayedGradient.apply(loss_of, len(names), left <= self._graphs(steps), *tensors)

        return through_the_walk(walk.problem if walk else problem, inner_gradient(problem, apply))

    def _graphs(self, steps: int) -> int:
        return {"one": 0, "all": steps}[self.allowance] if isinstance(self.allowance, str) else self.allowance

    def _share_kept(self, left: int, steps: int) -> float:
        """Of a compiled step's graph with `left` steps to go, itself counted: how much is held."""
        graphs = self._graphs(steps)
        if graphs >= steps:
            return 1.0
        if not graphs:
            return LAST if left == 1 else 0.0
        return PART if left <= PARTS * graphs else 0.0


class _ReplayedGradient(torch.autograd.Function):
    """(θ, φ) -> (L, ∇_θ L), differentiable once: through L's graph where it was kept, else by replaying it."""

    @staticmethod
    def forward(ctx: Any, loss_of: TensorLoss, inner: int, keep: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.loss_of, ctx.inner, ctx.kept = loss_of, inner, None
        with torch.enable_grad():
            if keep:
                loss, leaves, grads = ctx.kept = _graph(loss_of, inner, tensors)
            else:
                ctx.save_for_backward(*tensors)
                leaves = tuple(tensor.detach().requires_grad_(place < inner) for place, tensor in enumerate(tensors))
                loss = loss_of(leaves)
                grads = torch.autograd.grad(loss, leaves[:inner], allow_unused=True, materialize_grads=True)
        ctx.mark_non_differentiable(loss_value := loss.detach())
        return (loss_value, *(grad.detach() for grad in grads))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _loss: Tensor, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            _, leaves, grads = ctx.kept or _graph(ctx.loss_of, ctx.inner, ctx.saved_tensors)
            ctx.kept = None
            # <∇L, u>: its gradient is the Hessian-vector product in θ and the mixed one in φ.
            live = [(g, u) for g, u in zip(grads, cotangents, strict=True) if g.requires_grad]
            if not live:
                return (None, None, None, *(torch.zeros_like(leaf) for leaf in leaves))
            products = torch.autograd.grad([g for g, _ in live], leaves, [u for _, u in live], allow_unused=True)
        return (None, None, None, *products)


def _graph(
    loss_of: TensorLoss, inner: int, tensors: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """L, the leaves it is a function of, and ∇_θ L that can be differentiated in them."""
    leaves = tuple(tensor.detach().requires_grad_(True) for tensor in tensors)
    loss = loss_of(leaves)
    grads = torch.autograd.grad(loss, leaves[:inner], create_graph=True, allow_unused=True, materialize_grads=True)
    return loss, leaves, grads
