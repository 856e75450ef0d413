"""Exact meta-gradients on `higher` (Grefenstette et al. 2019): the whole graph is kept; memory grows with K.

It is the oracle of `reverse`: forward, optimizer and differentiation are `higher`'s own. `higher` cannot
patch PEFT modules (their metaclass and its base order conflict), so what it patches is a bare module that
holds θ and calls the problem's loss functions. Where its rules are not today's torch.optim it is set right:
it has no AdamW, its Adam adds ε before the bias correction, and it skips a tensor that gets no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import higher
import torch
from torch import Tensor, nn

from metacl.adaptation import SGD, Adam, AdamW, InnerOptimizer
from metacl.learners.base import Params
from metacl.metagradients.base import (
    ESTIMATORS,
    InnerLoopDiverged,
    InnerProblem,
    MetaGradient,
    MetaGradientResult,
    direction,
    gradient_of,
)


@ESTIMATORS.register("unrolled")
class Unrolled(MetaGradient):
    """Exact second order through `higher`; keeps every inner graph."""

    order: ClassVar[int] = 2
    exact: ClassVar[bool] = True
    needs_double_backward: ClassVar[bool] = True
    sharding_stages: ClassVar[frozenset[int]] = frozenset({0})

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
        asked: list[Tensor] = []
        for step in range(problem.loop.steps):
            if problem.along is not None:
                on_the_way = patched(lambda theta, k=step: problem.along(theta, problem.meta, k), names)
                asked += [] if on_the_way is None else [on_the_way]
            loss = patched(lambda theta, k=step: problem.support_loss(theta, problem.meta, k), names)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise InnerLoopDiverged(losses)
            rates = problem.loop.rates(problem.meta, names, step)
            override = {"lr": [rates[name] for name in names], **_corrected_eps(problem.loop.optimizer, step)}
            optimizer.step(loss, override=override, grad_callback=partial(_as_descended, problem, patched, start))
        asked.append(patched(lambda theta: problem.query_loss(theta, problem.meta), names))
        total = torch.stack(asked).sum() if len(asked) > 1 else asked[0]
        return MetaGradientResult(gradient_of(total, problem.meta), float(total.detach()), losses)


class _Bare(nn.Module):
    """θ as parameters, in a fixed order, and a forward that applies any function to them."""

    def __init__(self, theta: Params) -> None:
        super().__init__()
        self.values = nn.ParameterList([nn.Parameter(tensor.detach().clone()) for tensor in theta.values()])

    def forward(self, function: Any, names: list[str]) -> Tensor:
        return function(dict(zip(names, list(self.values), strict=True)))


class _DifferentiableAdamW(higher.optim.DifferentiableAdam):
    """Decoupled decay first, then `higher`'s Adam without any."""

    def _update(self, grouped_grads: Any, **kwargs: Any) -> None:
        decays = [group["weight_decay"] for group in self.param_groups]
        for group, decay in zip(self.param_groups, decays, strict=True):
            group["params"] = [p * (1 - group["lr"] * decay) for p in group["params"]]
            group["weight_decay"] = 0.0
        super()._update(grouped_grads, **kwargs)
        for group, decay in zip(self.param_groups, decays, strict=True):
            group["weight_decay"] = decay


higher.register_optim(torch.optim.AdamW, _DifferentiableAdamW)


def _corrected_eps(rule: InnerOptimizer, step: int) -> dict[str, list[float]]:
    """The ε of this step with which `higher`'s Adam divides by √v̂ + ε, as torch does."""
    if not isinstance(rule, Adam):
        return {}
    return {"eps": [rule.eps * math.sqrt(1 - rule.betas[1] ** (step + 1))]}


def _as_descended(
    problem: InnerProblem, patched: Any, start: Params, grads: Sequence[Tensor | None]
) -> list[Tensor]:
    """With zeros for None: momentum, weight decay and the proximal term move a tensor without a gradient, too."""
    theta = dict(zip(start, patched.fast_params, strict=True))
    pairs = zip(theta.items(), grads, strict=True)
    filled = {name: torch.zeros_like(tensor) if grad is None else grad for (name, tensor), grad in pairs}
    return list(direction(problem, filled, theta, start).values())


def _torch_optimizer(rule: InnerOptimizer, module: nn.Module) -> torch.optim.Optimizer:
    """torch's optimizer of the same rule, one group a tensor so that each has its own step size."""
    groups: list[dict[str, Any]] = [{"params": [parameter]} for parameter in module.parameters()]
    if isinstance(rule, SGD):
        return torch.optim.SGD(groups, lr=1.0, momentum=rule.momentum, nesterov=rule.nesterov)
    if isinstance(rule, Adam):
        kind = torch.optim.AdamW if isinstance(rule, AdamW) else torch.optim.Adam
        return kind(groups, lr=1.0, betas=rule.betas, eps=rule.eps, weight_decay=rule.weight_decay)
    raise TypeError(f"higher has no counterpart of the inner optimizer {type(rule).__name__}; use estimator 'reverse'")
