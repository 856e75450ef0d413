"""The two pieces of the walk, ∇_θ L_S and its vector-Jacobian product, as flat graphs: traced and compiled once.

A double backward through a compiled module raises; the two pieces are plain functions of tensors, so they compile.
Each is traced with `make_fx` for the shapes it meets (seconds; from then on the Python of the model and of PEFT is
out of the way) and compiled by inductor (about a minute, kept on disk between runs and workers). Frozen weights and
the task's data enter as inputs, so one graph serves every task and every step.
"""

from __future__ import annotations

import logging
import operator
import shutil
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
import torch._inductor
from torch import Tensor, fx
from torch.autograd.function import once_differentiable
from torch.fx.experimental.proxy_tensor import make_fx

from metacl.learners.base import Params

log = logging.getLogger(__name__)

Piece = Callable[..., tuple[Tensor, ...]]
DataLoss = Callable[[Params, Params, Sequence[Tensor]], Tensor]
"""(θ, φ, the tensors of the task's data) -> L_S."""


class TracedLoss:
    """A support loss and its compiled pieces, by the shapes they were compiled for. Kept from task to task.

    Parameters
    ----------
    loss : (θ, φ, data) -> scalar
        Depends on its arguments (and on frozen weights) alone: not on the step, not on Python state.
    """

    def __init__(self, loss: DataLoss) -> None:
        self._loss = loss
        self._pieces: dict[Hashable, Piece] = {}
        self.compile_seconds = 0.0

    def gradient(self, theta: Params, phi: Params, data: Sequence[Tensor], wanted: int) -> tuple[Tensor, ...]:
        """L_S and its gradient in the first `wanted` tensors of (θ…, φ…), zeros where there is no dependence."""

        def piece(*arguments: Tensor) -> tuple[Tensor, ...]:
            leaves, loss = self._value(theta, phi, arguments)
            grads = torch.autograd.grad(loss, leaves[:wanted], allow_unused=True, materialize_grads=True)
            return (loss.detach(), *(grad.detach() for grad in grads))

        return self._call(("gradient", wanted, *theta, "/", *phi), piece, (*theta.values(), *phi.values(), *data))

    def product(
        self, theta: Params, phi: Params, data: Sequence[Tensor], cotangents: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """(∇²_θθ L_S · u…, ∇²_φθ L_S · u…), zeros where there is no dependence."""
        known = len(theta) + len(phi) + len(data)

        def piece(*arguments: Tensor) -> tuple[Tensor, ...]:
            leaves, loss = self._value(theta, phi, arguments[:known])
            inner = leaves[: len(theta)]
            grads = torch.autograd.grad(loss, inner, create_graph=True, allow_unused=True, materialize_grads=True)
            live = [(g, u) for g, u in zip(grads, arguments[known:], strict=True) if g.requires_grad]
            if not live:
                return tuple(torch.zeros_like(leaf) for leaf in leaves)
            return torch.autograd.grad(
                [g for g, _ in live], leaves, [u for _, u in live], allow_unused=True, materialize_grads=True
            )

        arguments = (*theta.values(), *phi.values(), *data, *cotangents)
        return self._call(("product", *theta, "/", *phi), piece, arguments)

    def _value(self, theta: Params, phi: Params, arguments: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Tensor]:
        """Leaves for (θ…, φ…) and the loss at them; `arguments` are their values and the data."""
        count = len(theta) + len(phi)
        leaves = tuple(argument.detach().requires_grad_(True) for argument in arguments[:count])
        inner = dict(zip(theta, leaves[: len(theta)], strict=True))
        outer = dict(zip(phi, leaves[len(theta) :], strict=True))
        return leaves, self._loss(inner, outer, arguments[count:])

    def _call(self, name: tuple[Hashable, ...], piece: Piece, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        key = (name, tuple((a.shape, a.stride(), a.dtype, a.device) for a in arguments))
        arguments = tuple(argument.detach() for argument in arguments)
        if key not in self._pieces:
            started = time.perf_counter()
            with torch.enable_grad():
                # With fake tensors nothing can look at the values (a mask that happens to be all ones, say) and trace
                # a branch that other data would not take.
                graph = make_fx(piece, tracing_mode="fake", _allow_non_fake_inputs=True)(*arguments)
            with torch.no_grad():
                self._pieces[key] = _compile(str(name[0]), graph, arguments)
            self.compile_seconds += time.perf_counter() - started
        with torch.no_grad():
            return self._pieces[key](*arguments)


class CompiledGradient(torch.autograd.Function):
    """(θ, φ) -> (L_S, ∇_θ L_S) by the compiled gradient; its backward is the compiled product."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, traced: TracedLoss, theta: list[str], phi: list[str], data: Sequence[Tensor], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.traced, ctx.theta, ctx.phi, ctx.data = traced, theta, phi, data
        ctx.save_for_backward(*tensors)
        inner, outer = _named(theta, phi, tensors)
        loss, *grads = traced.gradient(inner, outer, data, len(theta))
        ctx.mark_non_differentiable(loss)
        return (loss, *grads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _loss: Tensor, *cotangents: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        inner, outer = _named(ctx.theta, ctx.phi, ctx.saved_tensors)
        return (None, None, None, None, *ctx.traced.product(inner, outer, ctx.data, cotangents))


def compiled_gradients(
    traced: TracedLoss, theta: list[str], phi: list[str], data: Sequence[Tensor], tensors: list[Tensor], wanted: int
) -> tuple[Tensor, list[Tensor | None]]:
    """L_S and its gradient in the first `wanted` of `tensors` (θ…, φ…)."""
    loss, *grads = traced.gradient(*_named(theta, phi, tensors), data, wanted)
    return loss, list(grads)


def compiler_here() -> bool:
    """Whether there is a C++ compiler for inductor. Without one the traced graphs run as they are."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def _named(theta: list[str], phi: list[str], tensors: Sequence[Tensor]) -> tuple[Params, Params]:
    return dict(zip(theta, tensors[: len(theta)], strict=True)), dict(zip(phi, tensors[len(theta) :], strict=True))


def _compile(name: str, graph: fx.GraphModule, arguments: tuple[Tensor, ...]) -> Piece:
    frozen = _lift_constants(graph)
    run: Piece = graph
    if compiler_here():
        try:
            run = torch._inductor.compile(graph, [*arguments, *frozen])
        except (RuntimeError, OSError) as error:  # inductor's own errors derive from RuntimeError
            log.warning("the %s could not be compiled (%s); its traced graph is used as it is", name, error)
    else:
        log.warning("no C++ compiler: the traced %s runs uncompiled", name)
    return lambda *tensors: tuple(run(*tensors, *frozen))


def _lift_constants(graph: fx.GraphModule) -> list[Tensor]:
    """Turn the frozen tensors that tracing stored in the graph into inputs at its end; the tensors, in order."""
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    frozen: list[Tensor] = []
    inputs: dict[str, fx.Node] = {}
    for node in [node for node in graph.graph.nodes if node.op == "get_attr"]:
        target = str(node.target)
        if target not in inputs:
            with graph.graph.inserting_after(last):
                inputs[target] = last = graph.graph.placeholder(f"frozen_{len(frozen)}")
            frozen.append(operator.attrgetter(target)(graph).detach())
        node.replace_all_uses_with(inputs[target])
        graph.graph.erase_node(node)
    graph.recompile()
    return frozen
