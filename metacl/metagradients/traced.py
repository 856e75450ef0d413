"""What of a meta-gradient problem can be traced: its functions with the task's data as an argument of their own."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from metacl.learners.base import Params
from metacl.metagradients.compiled import CompiledFunction

Data = Sequence[Tensor]
"""The tensors of a task."""


@dataclass
class TracedProblem:
    """The functions of all tasks of one structure, and their compiled forms. Kept from task to task.

    Each depends on its arguments (and on frozen weights) alone: not on the inner step, not on Python state.

    Attributes
    ----------
    inner : list of str
        Names of the tensors of θ.
    start : (φ, data) -> θ_0
    support_loss, query_loss : (θ, φ, data) -> scalar
    copies_start : bool
        Whether θ_0 is tensors of φ as they are, which is not worth compiling.
    """

    inner: list[str]
    start: Callable[[Params, Data], Params]
    support_loss: Callable[[Params, Params, Data], Tensor]
    query_loss: Callable[[Params, Params, Data], Tensor]
    copies_start: bool = False
    _compiled: dict[Hashable, CompiledFunction] = field(default_factory=dict)

    @cached_property
    def stacked(self) -> TracedProblem:
        """The functions of several tasks at once: all tensors have the task first, losses are summed over tasks."""

        def total(loss: Callable[[Params, Params, Data], Tensor]) -> Callable[[Params, Params, Data], Tensor]:
            return lambda theta, phi, data: torch.vmap(loss)(theta, phi, data).sum()

        return TracedProblem(
            inner=self.inner,
            start=torch.vmap(self.start),
            support_loss=total(self.support_loss),
            query_loss=total(self.query_loss),
            copies_start=self.copies_start,
        )

    @property
    def compile_seconds(self) -> float:
        """Spent on tracing and compiling so far."""
        stacked = self.__dict__.get("stacked")  # only if it was asked for
        own = sum(function.compile_seconds for function in self._compiled.values())
        return own + (stacked.compile_seconds if stacked else 0.0)

    def compiled_start(self, phi: list[str]) -> CompiledFunction | None:
        """(φ…) -> (θ_0…), in the order of `inner`; None where it only copies."""
        if self.copies_start:
            return None

        def function(tensors: Sequence[Tensor], data: Data) -> tuple[Tensor, ...]:
            theta = self.start(dict(zip(phi, tensors, strict=True)), data)
            return tuple(theta[name] for name in self.inner)

        return self._function(("the start", *phi), function)

    def compiled_gradient(self, phi: list[str], wanted: int) -> CompiledFunction:
        """(θ…, φ…) -> (L_S, its gradient in the first `wanted` of them), zeros where there is no dependence."""

        def function(tensors: Sequence[Tensor], data: Data) -> tuple[Tensor, ...]:
            loss = self.support_loss(*self._named(phi, tensors), data)
            grads = torch.autograd.grad(
                loss, tensors[:wanted], create_graph=True, allow_unused=True, materialize_grads=True
            )
            return (loss.detach(), *grads)

        return self._function(("the inner gradient", wanted, *phi), function)

    def compiled_query_loss(self, phi: list[str]) -> CompiledFunction:
        """(θ…, φ…) -> (L_Q,)."""

        def function(tensors: Sequence[Tensor], data: Data) -> tuple[Tensor, ...]:
            return (self.query_loss(*self._named(phi, tensors), data),)

        return self._function(("the query loss", *phi), function)

    def _named(self, phi: list[str], tensors: Sequence[Tensor]) -> tuple[Params, Params]:
        count = len(self.inner)
        return dict(zip(self.inner, tensors[:count], strict=True)), dict(zip(phi, tensors[count:], strict=True))

    def _function(
        self, key: tuple[Hashable, ...], function: Callable[[Sequence[Tensor], Data], tuple[Tensor, ...]]
    ) -> CompiledFunction:
        if key not in self._compiled:
            self._compiled[key] = CompiledFunction(str(key[0]), function)
        return self._compiled[key]
