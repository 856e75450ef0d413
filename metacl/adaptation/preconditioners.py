"""Learned transformations of the inner gradient, applied before the inner optimizer sees it.

A step size for every number (Meta-SGD) is a diagonal one and stands with the step sizes; here are the others.
Their meta-parameters go by the family of the step sizes: they say how to adapt, not what the model is.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from metacl.errors import ConfigError
from metacl.learners.base import STEP_SIZE, Params
from metacl.registry import Component, Registry

CURVATURE = f"{STEP_SIZE}curvature."


class Preconditioner(Component):
    """A linear map of the inner gradient, learned."""

    @abstractmethod
    def initial(self, shapes: Mapping[str, torch.Size | None]) -> Params:
        """Its meta-parameters for adapted tensors of these shapes (None: differs from task to task)."""

    @abstractmethod
    def apply(self, meta: Params, grads: Params) -> Params:
        """The gradient the optimizer gets, differentiable in `meta` and `grads`."""


PRECONDITIONERS: Registry[Preconditioner] = Registry("preconditioner", "inner.precondition")


@PRECONDITIONERS.register("meta_curvature")
class MetaCurvature(Preconditioner):
    """One learned matrix for each side of a weight: M_o G M_i (Park & Oliva 2019, "Meta-Curvature", sec. 3).

    A convolution's kernel has a third one over its places, a vector has M_o alone. They start as identities.
    """

    def initial(self, shapes: Mapping[str, torch.Size | None]) -> Params:
        """A square matrix a side. Raises `ConfigError` for a tensor without a fixed shape."""
        found = {}
        for name, shape in shapes.items():
            if shape is None:
                raise ConfigError(
                    f"inner.precondition: meta_curvature wants matrices of {name}'s size, which differs from task to "
                    f"task. Set objective=maml, whose head has a fixed size."
                )
            for side, size in enumerate(_sides(shape)):
                found[_name(name, side)] = torch.eye(size)
        return found

    def apply(self, meta: Params, grads: Params) -> Params:
        """Each side of each gradient multiplied by its matrix."""
        return {name: self._one(meta, name, grad) for name, grad in grads.items()}

    def _one(self, meta: Params, name: str, grad: Tensor) -> Tensor:
        folded = grad.reshape(_sides(grad.shape))
        for side in range(folded.dim()):
            matrix = meta[_name(name, side)]
            folded = torch.tensordot(folded, matrix, dims=([side], [1])).movedim(-1, side)
        return folded.reshape(grad.shape)


def _sides(shape: torch.Size) -> tuple[int, ...]:
    """(out,), (out, in) or (out, in, places of the kernel)."""
    return tuple(shape) if len(shape) <= 2 else (shape[0], shape[1], shape[2:].numel())


def _name(name: str, side: int) -> str:
    return f"{CURVATURE}{('output', 'input', 'kernel')[side]}.{name}"
