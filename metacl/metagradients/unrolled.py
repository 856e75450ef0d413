"""Exact meta-gradients on `higher` (Grefenstette et al. 2019): the whole graph is kept; memory grows with K.

It is the oracle of `reverse`: forward, optimizer and differentiation are `higher`'s own. `higher` cannot
patch PEFT modules (their metaclass and its base order conflict), so what it patches is a bare module that
holds θ and calls the problem's loss functions.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import higher
import torch
from higher.optim import DifferentiableAdam
from torch import Tensor, nn

from metacl.adaptation import SGD, Adam, AdamW, InnerOptimizer
from metacl.learners.base import Params
from metacl.metagradients.base import (
    ESTIMATORS,
    InnerLoopDiverged,
    InnerProblem,
    MetaGradient,
    MetaGradientResult,
    gradient_of,
)


@ESTIMATORS.register("unrolled")
class Unrolled(MetaGradient):
    """Exact second order through `higher`; keeps every inner graph."""

    order: ClassVar[int] = 2
    exact: ClassVar[bool] = True
    needs_double_backward: ClassVar[bool] = True

    def estimate(self, problem: InnerProblem) -> MetaGradientResult:
        """See `MetaGradient.estimate`."""
        # Clones, so that a gradient in θ_0 does not also run through other parts of θ_0 made from the same φ.
        start = {name: tensor.clone() for name, tensor in problem.start(problem.meta).items()}
        names = list(start)
        bare = _Bare(start)
        patched = higher.monkeypatch(bare, copy_initial_weights=True, track_higher_grads=True)
        patched.update_params(list(start.values()))
        optimizer = higher.get_diff_optim(
            _torch_optimizer(problem.loop.optimizer, bare), bare.parameters(), fmodel=patched, track_higher_grads=True
        )
        losses: list[float] = []
        for step in range(problem.loop.steps):
            loss = patched(lambda theta, k=step: problem.support_loss(theta, problem.meta, k), names)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise InnerLoopDiverged(losses)
            rates = problem.loop.rates(problem.meta, names, step)
            override: dict[str, list[Any]] = {"lr": [rates[name] for name in names]}
            if isinstance(problem.loop.optimizer, Adam):
                # higher adds ε to √v, torch to √v̂ = √v / √(1 − β₂ᵏ⁺¹).
                rule = problem.loop.optimizer
                override["eps"] = [rule.eps * math.sqrt(1 - rule.betas[1] ** (step + 1))]
            optimizer.step(loss, override=override)
        query_loss = patched(lambda theta: problem.query_loss(theta, problem.meta), names)
        return MetaGradientResult(gradient_of(query_loss, problem.meta), float(query_loss.detach()), losses)


class _Bare(nn.Module):
    """θ as parameters, in a fixed order, and a forward that applies any function to them."""

    def __init__(self, theta: Params) -> None:
        super().__init__()
        self.values = nn.ParameterList([nn.Parameter(tensor.detach().clone()) for tensor in theta.values()])

    def forward(self, function: Any, names: list[str]) -> Tensor:
        return function(dict(zip(names, list(self.values), strict=True)))


class _DifferentiableAdamW(DifferentiableAdam):
    """What `higher` lacks: θ is shrunk by 1 − ηλ, then Adam steps without weight decay."""

    def _update(self, grouped_grads: list[list[Tensor | None]], **kwargs: Any) -> None:
        decays = [group["weight_decay"] for group in self.param_groups]
        for group, grads, decay in zip(self.param_groups, grouped_grads, decays, strict=True):
            shrink = 1 - group["lr"] * decay
            group["params"] = [p if g is None else p * shrink for p, g in zip(group["params"], grads, strict=True)]
            group["weight_decay"] = 0.0
        super()._update(grouped_grads, **kwargs)
        for group, decay in zip(self.param_groups, decays, strict=True):
            group["weight_decay"] = decay


higher.register_optim(torch.optim.AdamW, _DifferentiableAdamW)


def _torch_optimizer(rule: InnerOptimizer, module: nn.Module) -> torch.optim.Optimizer:
    """torch's optimizer of the same rule, one group a tensor so that each has its own step size."""
    groups: list[dict[str, Any]] = [{"params": [parameter]} for parameter in module.parameters()]
    if isinstance(rule, SGD):
        return torch.optim.SGD(groups, lr=1.0, momentum=rule.momentum, nesterov=rule.nesterov)
    if isinstance(rule, Adam):
        kind = torch.optim.AdamW if isinstance(rule, AdamW) else torch.optim.Adam
        return kind(groups, lr=1.0, betas=rule.betas, eps=rule.eps, weight_decay=rule.weight_decay)
    raise TypeError(f"higher has no counterpart of the inner optimizer {type(rule).__name__}; use estimator 'reverse'")
