"""The outer optimizer: one step of the meta-parameters on a combined meta-gradient, with a state that can be saved."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from metacl.aggregation.base import euclidean_norm
from metacl.config import OuterLoop
from metacl.learners.base import STEP_SIZE, Params, as_leaves


class OuterOptimizer:
    """torch's optimizer over the meta-parameters, in two groups: learned tensors and learned step sizes.

    Attributes
    ----------
    meta : Params
        The current meta-parameters (leaf tensors), changed in place by `step`.
    """

    def __init__(self, config: OuterLoop, initial: Params) -> None:
        self._config = config
        # The fused optimizers pair numbers by where they lie, whatever the strides, and gradients lie in rows.
        self.meta = as_leaves({name: initial[name].contiguous() for name in sorted(initial)})
        learned = [p for name, p in self.meta.items() if not name.startswith(STEP_SIZE)]
        sizes = [p for name, p in self.meta.items() if name.startswith(STEP_SIZE)]
        groups = [
            {"params": learned, "lr": config.learning_rate, "weight_decay": config.weight_decay},
            {"params": sizes, "lr": config.step_size_learning_rate, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self._optimizer: torch.optim.Optimizer
        kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
        self._optimizer = kinds[config.optimizer](groups, fused=True)
        self._base_rates = [group["lr"] for group in self._optimizer.param_groups]

    def step(self, gradient: Params, step: int, norm: float | None = None) -> float:
        """Take outer step number `step` (from 0). Returns the gradient's norm before clipping.

        norm : given where these are a part only of all meta-parameters.
        """
        if norm is None:
            norm = math.hypot(*(euclidean_norm(g.numpy().reshape(-1)) for g in gradient.values()))
        limit = self._config.clip_norm
        scale = limit / norm if limit is not None and norm > limit else 1.0
        for name, parameter in self.meta.items():
            parameter.grad = gradient[name] if scale == 1 else gradient[name] * scale
        factor = schedule_factor(self._config, step)
        for group, rate in zip(self._optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor
        self._optimizer.step()
        return norm

    def finite(self) -> bool:
        """Whether all meta-parameters are."""
        return all(np.isfinite(parameter.detach().numpy()).all() for parameter in self.meta.values())

    def state(self) -> dict[str, Tensor]:
        """The optimizer's tensors as ``<slot>/<meta name>``, for a checkpoint."""
        return {
            f"{slot}/{name}": value.detach().clone()
            for name, parameter in self.meta.items()
            for slot, value in self._optimizer.state.get(parameter, {}).items()
            if isinstance(value, Tensor)
        }

    def restore(self, meta: Params, state: dict[str, Tensor]) -> None:
        """Continue from saved meta-parameters and saved optimizer tensors, bit for bit."""
        with torch.no_grad():
            for name, parameter in self.meta.items():
                parameter.copy_(meta[name])
        for key, value in state.items():
            slot, name = key.split("/", 1)
            self._optimizer.state[self.meta[name]][slot] = value.clone()


def schedule_factor(config: OuterLoop, step: int) -> float:
    """What the learning rates are multiplied by at outer step `step` (from 0): warm-up, then the schedule."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    if config.schedule == "linear":
        return 1.0 - progress
    return 0.5 * (1.0 + math.cos(math.pi * progress))
