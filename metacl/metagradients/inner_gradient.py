"""The inner gradient under an autograd Function of one's own, which is where exact and approximate walks differ.

Such a Function sees flat tensors, (θ…, φ…) -> (L_S, ∇_θ L_S…), and its backward turns the cotangent u of the
gradient into Hessian products: ∇²_θθ L_S · u for θ and ∇²_φθ L_S · u for φ. Everything around it, that is the
optimizer, the step sizes and the start, stays ordinary autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from metacl.learners.base import Params
from metacl.metagradients.base import InnerGradient, InnerProblem

TensorLoss = Callable[[Sequence[Tensor]], Tensor]
"""L_S as a function of the tensors of θ followed by those of φ."""

Applied = Callable[[TensorLoss, list[str], int, list[Tensor]], tuple[Tensor, ...]]
"""(loss, names of the tensors of θ, step k, tensors) -> (L_S, gradient of each tensor of θ)."""


def inner_gradient(problem: InnerProblem, apply: Applied) -> InnerGradient:
    """The `InnerGradient` that hands every step to `apply`."""

    def gradient(theta: Params, meta: Params, step: int) -> tuple[Tensor, Params]:
        names, meta_names = list(theta), list(meta)

        def loss_of(tensors: Sequence[Tensor]) -> Tensor:
            inner = dict(zip(names, tensors[: len(names)], strict=True))
            outer = dict(zip(meta_names, tensors[len(names) :], strict=True))
            return problem.support_loss(inner, outer, step)

        loss, *grads = apply(loss_of, names, step, [*theta.values(), *meta.values()])
        return loss, dict(zip(names, grads, strict=True))

    return gradient
