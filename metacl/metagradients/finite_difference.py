"""Second-order meta-gradients from first derivatives alone: any kernel, any engine, memory that is flat in K.

The walk is that of `reverse`; only the Hessian products are differences of gradients along the cotangent u,

    ∇²_θθ L · u ≈ (∇_θ L(θ + εu, φ) − ∇_θ L(θ − εu, φ)) / 2ε,    ∇²_φθ L · u likewise from ∇_φ L,

as in Liu et al. 2019, "DARTS", eq. 8 and Nichol et al. 2018. The error of central differences is O(ε²), that of
one-sided ones O(ε); both grow with K. Across a kink (ReLU, max pooling) they are wrong at any ε, so modules
with kinks are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor
from torch.autograd.function import once_differentiable

from metacl.errors import ConfigError
from metacl.learners.base import Learner
from metacl.learners.partition import Partition
from metacl.metagradients.base import ESTIMATORS, InnerProblem, MetaGradient, MetaGradientResult, through_the_walk
from metacl.metagradients.compiled import BoundFunction
from metacl.metagradients.compiled_walk import CompiledWalk
from metacl.metagradients.inner_gradient import TensorLoss, inner_gradient
from metacl.metagradients.kinks import kinks


@ESTIMATORS.register("finite_difference")
class FiniteDifference(MetaGradient):
    """Second order by differences of gradients; for fused kernels, which have no second derivative.

    epsilon : length of a difference's step, relative to that of all adapted parameters together.
    central : two gradients a product; false takes one and the gradient had on the way there: faster, less exact.
    accept_kinks : train a module with kinks all the same, where the gradient may be far off.
    compile : trace and compile the gradient, as for `reverse`.
    monitor_every : outer steps from one comparison with `reverse` to the next, on the first task of a step; its
    relative error goes into the metrics as ``estimator_error``. 0 (default): never. Needs a second derivative.
    """

    order: ClassVar[int] = 2
    exact: ClassVar[bool] = False
    needs_double_backward: ClassVar[bool] = False
    sharding_stages: ClassVar[frozenset[int]] = frozenset({0, 1, 2, 3})
    takes_parts: ClassVar[bool] = True

    epsilon: Annotated[float, Field(gt=0, le=0.1)] = 1e-3
    central: bool = True
    accept_kinks: bool = False
    compile: bool = False
    monitor_every: NonNegativeInt = 0

    @property
    def wants_few_shapes(self) -> bool:
        """When it compiles."""
        return self.compile

    def uncompiled(self) -> FiniteDifference:
        """Without `compile`."""
        return self.model_copy(update={"compile": False})

    def estimate(self, problem: InnerProblem) -> MetaGradientResult:
        """See `MetaGradient.estimate`."""
        walk = CompiledWalk(problem, mixed=True) if self.compile else None

        def apply(loss_of: TensorLoss, names: list[str], step: int, tensors: list[Tensor]) -> tuple[Tensor, ...]:
            piece = walk and walk.gradient(tensors)
            gradients = partial(_compiled_gradients, piece) if piece else partial(_gradients, loss_of)
            return _DifferencedGradient.apply(gradients, names, problem.partition, self.epsilon, self.central, *tensors)

        return through_the_walk(walk.problem if walk else problem, inner_gradient(problem, apply))

    def check_learner(self, learner: Learner) -> None:
        """Raise `ConfigError` if the learner's network has kinks, naming them."""
        found = [] if self.accept_kinks or learner.module is None else kinks(learner.module)
        if found:
            raise ConfigError(
                f"estimator: finite_difference takes differences of gradients, which are wrong across kinks, and the "
                f"model has {', '.join(found)}. Set estimator=reverse, which is exact there, or use smooth parts "
                f"(GELU, SiLU, Tanh, average pooling); estimator.accept_kinks=true trains with the wrong gradient."
            )

    def monitored(self, step: int, index: int) -> bool:
        """Every `monitor_every`-th outer step, the first task."""
        return self.monitor_every > 0 and index == 0 and step % self.monitor_every == 0


Gradients = Callable[[list[Tensor], int], tuple[Tensor, list[Tensor | None]]]
"""(tensors of θ and φ, how many are wanted) -> L and its gradients in the first ones, None for no dependence."""


class _DifferencedGradient(torch.autograd.Function):
    """(θ, φ) -> (L, ∇_θ L), differentiable once by differences of gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        gradients: Gradients,
        names: list[str],
        partition: Partition,
        epsilon: float,
        central: bool,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        inner = len(names)
        ctx.gradients, ctx.names, ctx.partition = gradients, names, partition
        ctx.epsilon, ctx.central = epsilon, central
        # A one-sided difference starts from this very gradient, so it is wanted in φ, too.
        loss, grads = gradients(list(tensors), len(tensors) if not central else inner)
        ctx.save_for_backward(*tensors, *([] if central else grads))
        ctx.mark_non_differentiable(loss)
        pairs = zip(grads[:inner], tensors[:inner], strict=True)
        return (loss, *(torch.zeros_like(tensor) if grad is None else grad for grad, tensor in pairs))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _loss: Tensor, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.saved_tensors) // (1 if ctx.central else 2)
        tensors, here = ctx.saved_tensors[:count], list(ctx.saved_tensors[count:])
        theta, phi = tensors[: len(ctx.names)], tensors[len(ctx.names) :]
        size = ctx.partition.norm(zip(ctx.names, cotangents, strict=True))
        if size == 0.0:
            return (None,) * (5 + count)
        # A start of zeros (a new head) has no length to be relative to.
        distance = ctx.epsilon * (ctx.partition.norm(zip(ctx.names, theta, strict=True)) or 1.0) / size

        def gradients_at(signed: float) -> list[Tensor | None]:
            moved = [tensor + signed * u for tensor, u in zip(theta, cotangents, strict=True)]
            return ctx.gradients([*moved, *phi], count)[1]

        ahead = gradients_at(distance)
        behind: list[Tensor | None]
        behind, width = (gradients_at(-distance), 2 * distance) if ctx.central else (here, distance)
        pairs = zip(ahead, behind, strict=True)
        products = (None if a is None or b is None else (a - b) / width for a, b in pairs)
        return (None, None, None, None, None, *products)


def _gradients(loss_of: TensorLoss, tensors: list[Tensor], wanted: int) -> tuple[Tensor, list[Tensor | None]]:
    """L and its gradients in the first `wanted` tensors, None where there is no dependence."""
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_(place < wanted) for place, tensor in enumerate(tensors)]
        loss = loss_of(leaves)
        grads = torch.autograd.grad(loss, leaves[:wanted], allow_unused=True)
    return loss.detach(), list(grads)


def _compiled_gradients(
    piece: BoundFunction, tensors: list[Tensor], wanted: int
) -> tuple[Tensor, list[Tensor | None]]:
    """L and its gradients in the first `wanted` tensors, zeros where there is no dependence."""
    loss, *grads = piece.outputs(tensors)
    return loss, list(grads[:wanted])
