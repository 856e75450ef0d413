"""SAMA (Choe et al. 2023, "Making Scalable Meta Learning Practical", sec. 3): one step back, first derivatives only.

The base Jacobian is taken as the identity (sec. 3.1), so that φ reaches the end by the start, as in `first_order`, and
by the last step's gradient. That way goes through the inner optimizer's own derivative, c = (∂u/∂g)ᵀ ∇L_Q ("algorithmic
adaptation", sec. 3.2), and the mixed derivative is a central difference along c:

    cᵀ ∂²L_S/∂θ∂φ ≈ (∇_φ L_S(θ_{K−1} + εc, φ) − ∇_φ L_S(θ_{K−1} − εc, φ)) / 2ε,    ε = α/‖c‖.

What it adds to first order is φ that the support loss reads beside θ: features below an adapted head, say.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from metacl.learners.base import Params
from metacl.metagradients.base import (
    ESTIMATORS,
    InnerProblem,
    MetaGradient,
    MetaGradientResult,
    adapt,
    plain_gradient,
)


@ESTIMATORS.register("sama")
class SAMA(MetaGradient):
    """First order, and the last step's dependence on what does not adapt, by a difference; no double backward."""

    order: ClassVar[int] = 2
    exact: ClassVar[bool] = False
    needs_double_backward: ClassVar[bool] = False
    sharding_stages: ClassVar[frozenset[int]] = frozenset({0, 1, 2, 3})
    sees_path: ClassVar[bool] = False

    distance: Annotated[float, Field(gt=0)] = 1e-2
    """α: length of the difference's step."""

    def estimate(self, problem: InnerProblem) -> MetaGradientResult:
        """See `MetaGradient.estimate`."""
        meta, plain = problem.meta, plain_gradient(problem)
        last: list[tuple[Params, Params]] = []

        def gradient(theta: Params, phi: Params, step: int) -> tuple[Tensor, Params]:
            loss, grads = plain(theta, phi, step)
            if step == problem.loop.steps - 1:
                grads = {name: grad.detach().requires_grad_() for name, grad in grads.items()}
                last.append(({name: tensor.detach() for name, tensor in theta.items()}, grads))
            return loss, grads

        end = adapt(problem, gradient, problem.start(meta))
        query_loss = problem.query_loss(end.theta, meta)
        of_last = [grad for _, grads in last for grad in grads.values()]
        found = torch.autograd.grad(query_loss, [*meta.values(), *of_last], allow_unused=True, materialize_grads=True)
        total = dict(zip(meta, found, strict=False))
        for theta, _ in last:
            cotangent = dict(zip(theta, found[len(meta) :], strict=True))
            mixed = self._mixed(problem, theta, cotangent)
            total = {name: g + mixed[name] for name, g in total.items()}
        return MetaGradientResult(total, float(query_loss.detach()), end.losses)

    def _mixed(self, problem: InnerProblem, theta: Params, along: Params) -> Params:
        size = float(torch.stack([tensor.double().square().sum() for tensor in along.values()]).sum().sqrt())
        if size == 0.0:
            return {name: torch.zeros_like(tensor) for name, tensor in problem.meta.items()}
        epsilon = self.distance / size

        def gradients_at(signed: float) -> tuple[Tensor, ...]:
            moved = {name: (tensor + signed * along[name]).requires_grad_() for name, tensor in theta.items()}
            loss = problem.support_loss(moved, problem.meta, problem.loop.steps - 1)
            return torch.autograd.grad(loss, list(problem.meta.values()), allow_unused=True, materialize_grads=True)

        pairs = zip(problem.meta, gradients_at(epsilon), gradients_at(-epsilon), strict=True)
        return {name: (ahead - behind) / (2 * epsilon) for name, ahead, behind in pairs}
