"""What is asked of θ_k on the way, differentiated at once, so that no network's graph outlives its step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metacl.learners.base import Params

Along = Callable[[Params, Params, int], Tensor | None]
"""(θ_k, φ, k) -> a scalar, or None where nothing is asked."""


def asked_along(along: Along, theta: Params, phi: Params, step: int) -> list[Tensor]:
    """What is asked of `theta` at `step`: one scalar or none. It keeps its gradient and no graph."""
    names, meta_names = list(theta), list(phi)

    def loss_of(tensors: list[Tensor]) -> Tensor | None:
        inner = dict(zip(names, tensors[: len(names)], strict=True))
        return along(inner, dict(zip(meta_names, tensors[len(names) :], strict=True)), step)

    tensors = [*theta.values(), *phi.values()]
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_(True) for tensor in tensors]
        loss = loss_of(leaves)
        if loss is None:
            return []
        grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return [_WithGradient.apply(loss.detach(), grads, *tensors)]


class _WithGradient(torch.autograd.Function):
    """A value whose gradient in `tensors` is known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, grads: tuple[Tensor, ...], *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*grads)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(cotangent * grad for grad in ctx.saved_tensors))
