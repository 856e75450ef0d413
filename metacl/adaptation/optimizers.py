"""Inner optimizers as pure, differentiable functions: (parameters, gradients, state, step sizes) -> new ones.

Each rule is written in tensor operations that autograd can walk through, so a meta-gradient reaches the
gradients, the state and the step sizes alike. They follow torch.optim's conventions.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from metacl.learners.base import Params
from metacl.registry import Component, Registry

State = dict[str, Params]
"""Optimizer state: slot name ("momentum") -> one tensor per parameter name. Empty before the first step."""

Decay = Annotated[float, Field(ge=0.0, lt=1.0)]


class InnerOptimizer(Component):
    """One update rule of the inner loop."""

    @abstractmethod
    def displacement(
        self, params: Params, grads: Params, state: State, rates: Params, step: int
    ) -> tuple[Params, State]:
        """θ_k − θ_{k+1}, s_{k+1} from θ_k, ∇L(θ_k), s_k.

        Not θ_{k+1} itself: from its rounded numbers what was subtracted cannot be had back.

        Parameters
        ----------
        params, grads : Params
            Same names, same shapes.
        state : State
            What the previous call returned, ``{}`` at step 0.
        rates : Params
            Step size per parameter name; each broadcasts against its parameter.
        step : int
            k, counted from 0.
        """


INNER_OPTIMIZERS: Registry[InnerOptimizer] = Registry("inner optimizer", "inner.optimizer")


@INNER_OPTIMIZERS.register("sgd")
class SGD(InnerOptimizer):
    """Gradient descent, with classical or Nesterov momentum (torch.optim.SGD's form, no dampening)."""

    momentum: Decay = 0.0
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SGD:
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("nesterov needs a momentum above 0; set inner.optimizer.momentum, for example 0.9")
        return self

    def displacement(
        self, params: Params, grads: Params, state: State, rates: Params, step: int
    ) -> tuple[Params, State]:
        """η·d, d = g, or m (m ← μm + g), or g + μm."""
        if self.momentum == 0.0:
            return {name: rates[name] * grads[name] for name in params}, {}
        old = state.get("momentum")
        momentum = {n: g if old is None else self.momentum * old[n] + g for n, g in grads.items()}
        direction = {n: g + self.momentum * momentum[n] for n, g in grads.items()} if self.nesterov else momentum
        return {name: rates[name] * direction[name] for name in params}, {"momentum": momentum}


@INNER_OPTIMIZERS.register("adam")
class Adam(InnerOptimizer):
    """Adam (Kingma & Ba 2015, algorithm 1), weight decay added to the gradient."""

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0.0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0

    def displacement(
        self, params: Params, grads: Params, state: State, rates: Params, step: int
    ) -> tuple[Params, State]:
        """η·m̂ / (√v̂ + ε)."""
        decayed = {n: g + self.weight_decay * params[n] for n, g in grads.items()} if self.weight_decay else grads
        return self._moments_step(decayed, state, rates, step)

    def _moments_step(self, grads: Params, state: State, rates: Params, step: int) -> tuple[Params, State]:
        first, second = self.betas
        zeros = {name: torch.zeros_like(g) for name, g in grads.items()}
        m_old, v_old = state.get("first", zeros), state.get("second", zeros)
        m = {n: first * m_old[n] + (1 - first) * g for n, g in grads.items()}
        v = {n: second * v_old[n] + (1 - second) * g * g for n, g in grads.items()}
        # m̂ / (√v̂ + ε) with the bias corrections folded into η and ε: fewer operations on whole tensors, in the order
        # of `higher`. Adam magnifies last bits, so another order would take the two apart by 5e-5 in float32.
        correction, root = 1 - first ** (step + 1), math.sqrt(1 - second ** (step + 1))
        moved = {n: rates[n] * root / correction * (m[n] / (_sqrt(v[n]) + self.eps * root)) for n in grads}
        return moved, {"first": m, "second": v}


@INNER_OPTIMIZERS.register("adamw")
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2)."""

    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01

    def displacement(
        self, params: Params, grads: Params, state: State, rates: Params, step: int
    ) -> tuple[Params, State]:
        """ηλθ + η·m̂ / (√v̂ + ε)."""
        moved, state = self._moments_step(grads, state, rates, step)
        return {n: rates[n] * self.weight_decay * p + moved[n] for n, p in params.items()}, state


def _sqrt(value: Tensor) -> Tensor:
    """√value whose derivative at 0 is taken as 0: a LoRA factor has an exactly zero gradient at the start."""
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1.0).sqrt(), 0.0)
