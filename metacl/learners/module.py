"""Any `nn.Module` with a loss as a learner, for use from Python; nothing in it is about text or transformers.

>>> learner = ModuleLearner(network, torch.nn.functional.mse_loss)                          # doctest: +SKIP
>>> task = learner.task(support=(x, y), query=(x_new, y_new))                               # doctest: +SKIP
>>> meta = as_leaves(MAML().meta_parameters(learner, loop, ways=0))                         # doctest: +SKIP
>>> gradient = Reverse().estimate(MAML().problem(learner, meta, task, loop)).gradient       # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metacl.errors import ConfigError
from metacl.learners.base import HEAD, Batch, Learner, Params, Task

MODULE = "module."
DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
Examples = tuple[Any, Any]
"""Inputs (B, …) and targets (B, …), as tensors, arrays or nested sequences."""


class ModuleLearner(Learner):
    """A module as a pure function of those of its parameters that require gradients. The module is never changed.

    Parameters
    ----------
    module : nn.Module
        Called with one tensor (B, …). Its mode stays as it is: in training mode batch norm uses the statistics of the
        batch, as MAML's experiments do, and its running ones are left alone.
    loss : (outputs, targets) -> scalar
        The mean over the batch.
    head : str
        Path of the submodule that is the head ("classifier"). Its parameters are known as ``head.…``: they have their
        own initial step size, and the objective ANIL adapts only them. Default: there is none.

    Raises
    ------
    ConfigError
        Nothing requires gradients, the head has no such parameters, or dropout is active: an estimator that replays
        a step would meet other random numbers.
    """

    def __init__(self, module: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], head: str | None = None) -> None:
        held = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        if not held:
            raise ConfigError("module: no parameter requires gradients, so nothing can adapt. Call requires_grad_().")
        random = [name or "itself" for name, part in module.named_modules() if _drops(part)]
        if random:
            raise ConfigError(
                f"module: dropout is active at {', '.join(random)}. Call eval() on it, or set its p to 0."
            )
        self.module: nn.Module = module
        self._loss = loss
        self._held_names = {_own_name(name, head): name for name in held}
        if head is not None and not any(name.startswith(HEAD) for name in self._held_names):
            raise ConfigError(f"head: no parameter under {head!r} requires gradients. Known: {', '.join(held)}.")
        first = next(iter(held.values()))
        self.device, self._dtype = first.device, first.dtype
        self.initial = {own: held[name].detach().cpu().clone() for own, name in self._held_names.items()}
        self.base_parameters = sum(p.numel() for p in module.parameters() if not p.requires_grad)

    def encode(self, examples: Any, labels: Any) -> Batch:
        """B inputs (and targets) as tensors on the module's device, floating-point ones in its type."""
        return Batch.single(self._tensor(examples), None if labels is None else self._tensor(labels))

    def task(self, support: Examples, query: Examples, ways: int = 0) -> Task:
        """A task from tensors or arrays. `ways` is the number of classes, 0 where targets are no classes."""
        return Task(ways, self.encode(*support), self.encode(*query))

    def outputs(self, params: Params, batch: Batch) -> Tensor:
        """What the module returns, (B, …)."""
        bound = {name: params[own] for own, name in self._held_names.items()}
        # A module that is training writes running statistics; it writes them into copies.
        buffers = {name: b.clone() for name, b in self.module.named_buffers()} if self.module.training else {}
        return functional_call(self.module, {**bound, **buffers}, (batch.input,))

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """The loss that was given."""
        assert batch.targets is not None, "a loss needs targets"
        return self._loss(self.outputs(params, batch), batch.targets)

    def _tensor(self, values: Any) -> Tensor:
        if isinstance(values, Sequence) and values and isinstance(values[0], Tensor):
            values = torch.stack(list(values))
        tensor = torch.as_tensor(values, device=self.device)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor


def _own_name(name: str, head: str | None) -> str:
    if head is not None and name.startswith(f"{head}."):
        return HEAD + name.removeprefix(f"{head}.")
    return MODULE + name


def _drops(part: nn.Module) -> bool:
    return part.training and isinstance(part, DROPOUT) and part.p > 0
