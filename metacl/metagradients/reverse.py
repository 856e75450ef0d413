"""Exact meta-gradients with memory that does not grow with the number of inner steps.

The inner *gradient* alone is an autograd Function: its forward keeps the parameters and nothing of the
network's graph; its backward replays the step and multiplies by the Hessian, ∇²L_S(θ_k)·u. The optimizer,
the step sizes and the start stay ordinary autograd. Reverse-mode hypergradients: Maclaurin et al. 2015,
"Gradient-based Hyperparameter Optimization through Reversible Learning", alg. 2, with stored θ_k instead
of reversed dynamics; Franceschi et al. 2017, eq. 13.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metacl.learners.base import Params
from metacl.metagradients.base import (
    ESTIMATORS,
    InnerProblem,
    MetaGradient,
    MetaGradientResult,
    adapt,
    gradient_of,
)


@ESTIMATORS.register("reverse")
class Reverse(MetaGradient):
    """Exact second order; keeps only (θ_k, s_k) and replays each inner step on the way back."""

    order: ClassVar[int] = 2
    exact: ClassVar[bool] = True
    needs_double_backward: ClassVar[bool] = True

    def estimate(self, problem: InnerProblem) -> MetaGradientResult:
        """See `MetaGradient.estimate`."""

        def gradient(theta: Params, meta: Params, step: int) -> tuple[Tensor, Params]:
            names, meta_names = list(theta), list(meta)

            def loss_of(tensors: tuple[Tensor, ...]) -> Tensor:
                inner = dict(zip(names, tensors[: len(names)], strict=True))
                outer = dict(zip(meta_names, tensors[len(names) :], strict=True))
                return problem.support_loss(inner, outer, step)

            loss, *grads = _ReplayedGradient.apply(loss_of, len(names), *theta.values(), *meta.values())
            return loss, dict(zip(names, grads, strict=True))

        end = adapt(problem, gradient, problem.start(problem.meta))
        query_loss = problem.query_loss(end.theta, problem.meta)
        return MetaGradientResult(gradient_of(query_loss, problem.meta), float(query_loss.detach()), end.losses)


class _ReplayedGradient(torch.autograd.Function):
    """(θ, φ) -> (L, ∇_θ L), differentiable once by replaying L's graph in the backward."""

    @staticmethod
    def forward(ctx: Any, loss_of: Any, inner: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.loss_of, ctx.inner = loss_of, inner
        ctx.save_for_backward(*tensors)
        with torch.enable_grad():
            leaves = tuple(tensor.detach().requires_grad_(position < inner) for position, tensor in enumerate(tensors))
            loss = loss_of(leaves)
            grads = torch.autograd.grad(loss, leaves[:inner], allow_unused=True, materialize_grads=True)
        ctx.mark_non_differentiable(loss_value := loss.detach())
        return (loss_value, *grads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _loss: Tensor, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            leaves = tuple(tensor.detach().requires_grad_(True) for tensor in ctx.saved_tensors)
            loss = ctx.loss_of(leaves)
            grads = torch.autograd.grad(loss, leaves[: ctx.inner], create_graph=True, materialize_grads=True)
            # <∇L, u>: its gradient is the Hessian-vector product in θ and the mixed one in φ.
            live = [(g, u) for g, u in zip(grads, cotangents, strict=True) if g.requires_grad]
            if not live:
                return (None, None, *(torch.zeros_like(leaf) for leaf in leaves))
            products = torch.autograd.grad([g for g, _ in live], leaves, [u for _, u in live], allow_unused=True)
        return (None, None, *products)
