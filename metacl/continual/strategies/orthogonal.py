"""Orthogonal gradient descent: no step along what changes earlier answers (Farajtabar et al. 2020, alg. 1)."""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor

from metacl.continual.experience import Address
from metacl.continual.moment import Moment
from metacl.continual.strategies.base import STRATEGIES, State, Strategy
from metacl.errors import ConfigError
from metacl.learners.base import Params, as_leaves

BASIS = "basis"
SMALLEST = 1e-4
"""A direction is new if this much of its length is not in the basis yet."""


@STRATEGIES.register("orthogonal_subspace")
class OrthogonalSubspace(Strategy):
    """The gradient is projected on what is orthogonal to the gradients of log p(y | x) of stored directions.

    directions : added to the basis by each experience, from examples drawn at random; each is as large as the model's
    adaptable parameters. With Adam a step is not along the gradient, and the promise holds for SGD only.
    """

    directions: PositiveInt = 20

    def gradient(self, moment: Moment, params: Params, gradient: Params, state: State) -> Params:
        """g − V Vᵀ g."""
        if BASIS not in state:
            return gradient
        flat = _flat(gradient)
        flat = flat - state[BASIS].T @ (state[BASIS] @ flat)
        parts = flat.split([tensor.numel() for tensor in gradient.values()])
        return {name: part.view_as(gradient[name]) for name, part in zip(gradient, parts, strict=True)}

    def end(self, moment: Moment, params: Params, addresses: list[Address], state: State) -> tuple[Params, State]:
        """New directions, made orthonormal to all before (Gram-Schmidt, twice for rounding)."""
        basis = [state[BASIS]] if BASIS in state else []
        leaves = as_leaves(params)
        chosen = moment.random().sample(addresses, min(self.directions, len(addresses)))
        for minibatch in moment.minibatches(chosen, 1):
            targets = minibatch.batch.targets
            assert targets is not None
            outputs = moment.model.outputs(leaves, minibatch.batch)
            value = moment.model.log_likelihoods(outputs, targets, minibatch.allowed)[0]
            found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
            direction = _flat(dict(zip(leaves, found, strict=True)))
            length = float(direction.norm())
            for _ in range(2):
                for rows in basis:
                    direction = direction - rows.T @ (rows @ direction)
            if float(direction.norm()) > SMALLEST * length > 0:
                basis.append((direction / direction.norm()).unsqueeze(0))
        return params, {BASIS: torch.cat(basis)} if basis else state

    def grown(self, state: State, start: Params) -> State:
        """Raises `ConfigError`: directions have the size of the model they were made for."""
        raise ConfigError(
            "strategies: orthogonal_subspace cannot take new classes, for its directions have the model's size. "
            "Begin a new run, or append experiences of known classes."
        )


def _flat(params: Params) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in params.values()])
