"""Implicit meta-gradients, iMAML (Rajeswaran et al. 2019, "Meta-Learning with Implicit Gradients", eq. 6, alg. 2).

The inner problem is θ* = argmin L_S(θ, φ) + λ/2 ‖θ − θ_0(φ)‖² with λ = ``inner.proximal``; the inner loop descends
exactly that, here and when an initialization is adapted later. At its minimum, with v = ∇L_Q(θ*) and
x = (I + ∇²L_S/λ)⁻¹ v by conjugate gradients,

    g = xᵀ dθ_0/dφ − (1/λ) xᵀ ∂²L_S/∂θ∂φ + ∂L_Q/∂φ,

whatever path led there. It is as good as the inner loop has converged. Learned step sizes get zeros, since the
minimum does not depend on them. Memory does not grow with the inner steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from metacl.adaptation import InnerLoop
from metacl.errors import ConfigError
from metacl.learners.base import Params, as_leaves
from metacl.metagradients.base import (
    ESTIMATORS,
    InnerProblem,
    MetaGradient,
    MetaGradientResult,
    adapt,
    plain_gradient,
    through_start,
)


@ESTIMATORS.register("implicit")
class Implicit(MetaGradient):
    """iMAML: second order at the end of the inner loop alone; needs ``inner.proximal`` and a converged loop.

    iterations : of conjugate gradients, one Hessian product each. tolerance : they end early once the residual is
    at most this fraction of v.
    """

    order: ClassVar[int] = 2
    exact: ClassVar[bool] = False
    needs_double_backward: ClassVar[bool] = True
    sharding_stages: ClassVar[frozenset[int]] = frozenset({0, 1, 2, 3})
    sees_path: ClassVar[bool] = False

    iterations: PositiveInt = 10
    tolerance: Annotated[float, Field(ge=0.0, lt=1.0)] = 1e-6

    def check_loop(self, loop: InnerLoop) -> None:
        """Raise `ConfigError` without a proximal term or without a step."""
        if loop.proximal == 0.0:
            raise ConfigError(
                "inner.proximal: 0, but estimator 'implicit' differentiates the minimum that the proximal term makes. "
                "Set inner.proximal=1 (larger keeps closer to the start), or estimator=reverse."
            )
        if loop.steps == 0:
            raise ConfigError("inner.steps: 0, but estimator 'implicit' needs an inner loop that converges.")

    def estimate(self, problem: InnerProblem) -> MetaGradientResult:
        """See `MetaGradient.estimate`. The Hessian is that of the last inner step's support loss."""
        self.check_loop(problem.loop)
        if problem.ascending:
            raise ConfigError("estimator: implicit needs a minimum; this objective has a saddle. Set estimator=reverse")
        meta, strength = problem.meta, problem.loop.proximal
        start = problem.start(meta)
        with torch.no_grad():
            end = adapt(problem, plain_gradient(problem), start)
        theta = as_leaves(end.theta)
        query_loss = problem.query_loss(theta, meta)
        v = torch.autograd.grad(
            query_loss, [*theta.values(), *meta.values()], allow_unused=True, materialize_grads=True
        )
        direct = v[len(theta) :]
        support_gradient = _SupportGradient(problem, theta)

        def system(vector: list[Tensor]) -> list[Tensor]:
            products = support_gradient.vjp(vector, theta)
            return [p + product / strength for p, product in zip(vector, products, strict=True)]

        x = conjugate_gradients(system, list(v[: len(theta)]), self.iterations, self.tolerance)
        mixed = support_gradient.vjp(x, meta)
        through = through_start(start, dict(zip(theta, x, strict=True)), meta)
        gradient = {
            name: through[name] + of_query - of_support / strength
            for name, of_query, of_support in zip(meta, direct, mixed, strict=True)
        }
        return MetaGradientResult(gradient, float(query_loss.detach()), end.losses)


class _SupportGradient:
    """∇_θ L_S at one place, with a graph that is built once and asked for any number of products."""

    def __init__(self, problem: InnerProblem, theta: Params) -> None:
        loss = problem.support_loss(theta, problem.meta, problem.loop.steps - 1)
        self._gradient = torch.autograd.grad(loss, list(theta.values()), create_graph=True, materialize_grads=True)

    def vjp(self, vector: list[Tensor], of: Params) -> list[Tensor]:
        """vectorᵀ · d(∇_θ L_S) / d`of`, a tensor each; zeros where there is no dependence."""
        live = [(g, u) for g, u in zip(self._gradient, vector, strict=True) if g.requires_grad]
        if not live:
            return [torch.zeros_like(tensor) for tensor in of.values()]
        return list(
            torch.autograd.grad(
                [g for g, _ in live],
                list(of.values()),
                [u for _, u in live],
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
        )


def conjugate_gradients(
    system: Callable[[list[Tensor]], list[Tensor]], target: list[Tensor], iterations: int, tolerance: float
) -> list[Tensor]:
    """Solve system(x) = target for a symmetric system (Hestenes & Stiefel 1952), from x = target.

    It ends after `iterations`, once the residual is at most `tolerance` · ‖target‖, or in a direction of negative
    curvature, where the inner problem has no minimum and going on would only do harm.
    """
    x = target
    residual = _combined(target, -1.0, system(x))
    direction, size = residual, _dot(residual, residual)
    enough = tolerance**2 * _dot(target, target)
    for _ in range(iterations):
        if size <= enough:
            break
        image = system(direction)
        curvature = _dot(direction, image)
        if curvature <= 0.0:
            break
        step = size / curvature
        x = _combined(x, step, direction)
        residual = _combined(residual, -step, image)
        previous, size = size, _dot(residual, residual)
        direction = _combined(residual, size / previous, direction)
    return x


def _dot(first: list[Tensor], second: list[Tensor]) -> float:
    return sum(float((a.double() * b.double()).sum()) for a, b in zip(first, second, strict=True))


def _combined(first: list[Tensor], scale: float, second: list[Tensor]) -> list[Tensor]:
    return [a + scale * b for a, b in zip(first, second, strict=True)]
