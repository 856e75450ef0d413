"""The pieces of a walk (the start, the inner gradient, the query loss, and their products) as compiled graphs.

A double backward through a compiled module raises; the pieces are plain functions of tensors, so they compile. Each
is traced for the shapes it meets (seconds; from then on the Python of the model and of PEFT is out of the way), cut
(see graphs.py) and compiled by inductor (some ten seconds a piece, kept on disk between runs and workers). One
compilation serves every task and every step.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import Any

import torch
import torch._inductor
from torch import Tensor, fx
from torch.autograd.function import once_differentiable

from metacl.metagradients.graphs import Cuts, TensorFunction
from metacl.metagradients.trajectory_memory import TrajectoryMemory

log = logging.getLogger(__name__)

Piece = Callable[..., Sequence[Tensor]]


class CompiledFunction:
    """A function of parameters and data with its vector-Jacobian product, by the shapes it was compiled for.

    Parameters
    ----------
    name : str
        For messages: "the inner gradient".
    function : (parameters, data) -> outputs
        Depends on its arguments (and on frozen weights) alone: not on Python state.

    Attributes
    ----------
    compile_seconds : float
        Spent on tracing and compiling so far.
    """

    def __init__(self, name: str, function: TensorFunction) -> None:
        self.name = name
        self.function = function
        self.compile_seconds = 0.0
        self._compiled: list[_Compiled] = []
        self._untraceable = False

    def bind(self, parameters: Sequence[Tensor], data: Sequence[Tensor]) -> BoundFunction | None:
        """The function for one task's data; `parameters` are looked at for their shapes only.

        None if it cannot be traced, because what it computes depends on the values of tensors: said once, in a warning.
        """
        if self._untraceable:
            return None
        for compiled in self._compiled:
            if compiled.fits(parameters, data):
                return BoundFunction(compiled, data)
        started = time.perf_counter()
        try:
            cuts = Cuts(self.function, parameters, data, fused=compiler_here())
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            log.warning("%s cannot be traced and runs uncompiled: %s", self.name, reason)
            self._untraceable = True
            return None
        finally:
            self.compile_seconds += time.perf_counter() - started
        self._compiled.append(_Compiled(self, cuts, parameters, data))
        return BoundFunction(self._compiled[-1], data)


class _Compiled:
    """The pieces of one function for one choice of shapes, each compiled when it is first needed."""

    def __init__(
        self, owner: CompiledFunction, cuts: Cuts, parameters: Sequence[Tensor], data: Sequence[Tensor]
    ) -> None:
        self.cuts = cuts
        self._owner = owner
        self._shapes = self._seen(parameters, data)
        self._pieces: dict[Hashable, Piece] = {}

    def fits(self, parameters: Sequence[Tensor], data: Sequence[Tensor]) -> bool:
        """Whether the graphs hold for tensors like these."""
        return self._seen(parameters, data) == self._shapes

    def _seen(self, parameters: Sequence[Tensor], data: Sequence[Tensor]) -> list[Hashable]:
        used = [tensor for tensor, matters in zip(data, self.cuts.used, strict=True) if matters]
        return [(t.shape, t.stride(), t.dtype, t.device) for t in (*parameters, *used)]

    def run(self, name: str, arguments: Sequence[Tensor], share: float = 0.0) -> tuple[Tensor, ...]:
        """Call the piece `name` of the cuts, or the "forward" or the "back" of its halves for `share`."""
        with torch.no_grad():
            key = (name, share)
            if key not in self._pieces:
                started = time.perf_counter()
                halves = dict(zip(("forward", "back"), self.cuts.halves(share), strict=True)) if share else {}
                graph = halves[name] if share else getattr(self.cuts, name)
                self._pieces[key] = _compile(self._owner.name, graph, arguments)
                self._owner.compile_seconds += time.perf_counter() - started
            return tuple(self._pieces[key](*arguments))


class BoundFunction:
    """A compiled function with the data of one task; what depends on the data alone is computed here, once."""

    def __init__(self, compiled: _Compiled, data: Sequence[Tensor]) -> None:
        self._compiled = compiled
        frozen = compiled.cuts.frozen
        with torch.no_grad():
            self._rest = (*compiled.cuts.once(*data, *frozen), *frozen)

    def outputs(self, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The outputs as constants."""
        return _moved(self._compiled.run("outputs", (*_constants(parameters), *self._rest)))

    def __call__(
        self, parameters: Sequence[Tensor], share: float, memory: TrajectoryMemory | None = None
    ) -> tuple[Tensor, ...]:
        """The outputs, differentiable once.

        Parameters
        ----------
        share : float in [0, 1]
            Of what the way back needs of the forward part, how much is held until then: 0 holds the parameters alone
            and computes all again. See `Cuts.halves`.
        memory : optional
            That of the walk that this is a step of.
        """
        return _Kept.apply(self, share, memory, *parameters) if share else _Replayed.apply(self, memory, *parameters)

    def products(self, parameters: Sequence[Tensor], cotangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The vector-Jacobian product at `parameters`, the forward part computed again."""
        return _moved(self._compiled.run("products", (*_constants(parameters), *self._rest, *cotangents)))

    def keep(self, parameters: Sequence[Tensor], share: float) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The outputs, and what `finish` needs."""
        results = self._compiled.run("forward", (*_constants(parameters), *self._rest), share)
        count = len(self._compiled.cuts.live)
        return _moved(results[:count]), results[count:]

    def constant(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Those of the outputs that do not depend on the parameters differentiably."""
        return [out for out, live in zip(outputs, self._compiled.cuts.live, strict=True) if not live]

    def finish(self, kept: Sequence[Tensor], cotangents: Sequence[Tensor], share: float) -> tuple[Tensor, ...]:
        """The vector-Jacobian product where `keep` was called."""
        return _moved(self._compiled.run("back", (*kept, *cotangents), share))


class _Replayed(torch.autograd.Function):
    """parameters -> outputs; only the parameters are held."""

    @staticmethod
    def forward(
        ctx: Any, bound: BoundFunction, memory: TrajectoryMemory | None, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.bound, ctx.memory = bound, memory
        ctx.save_for_backward(*(memory.hold(parameters) if memory else parameters))
        outputs = bound.outputs(parameters)
        ctx.mark_non_differentiable(*bound.constant(outputs))
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.memory:
            ctx.memory.before_step_back()
        bound, ctx.bound = ctx.bound, None  # what it holds of the data is not to wait for the end of the walk
        return (None, None, *bound.products(ctx.saved_tensors, cotangents))


class _Kept(torch.autograd.Function):
    """parameters -> outputs; a share of what the way back needs is held."""

    @staticmethod
    def forward(
        ctx: Any, bound: BoundFunction, share: float, memory: TrajectoryMemory | None, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        outputs, kept = bound.keep(parameters, share)
        ctx.bound, ctx.share, ctx.memory = bound, share, memory
        ctx.save_for_backward(*kept)
        ctx.mark_non_differentiable(*bound.constant(outputs))
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.memory:
            ctx.memory.before_step_back()
        bound, ctx.bound = ctx.bound, None
        return (None, None, None, *bound.finish(ctx.saved_tensors, cotangents, ctx.share))


def compiler_here() -> bool:
    """Whether there is a C++ compiler for inductor. Without one the traced graphs run as they are."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


@cache
def _say_once(text: str) -> None:
    log.warning(text)


def _constants(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [parameter.detach() for parameter in parameters]


def _moved(results: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Copies, made when a piece's large tensors are gone: its results would lie in the midst of the next one's room."""
    return tuple(result.clone() for result in results)


def _compile(name: str, graph: fx.GraphModule, arguments: Sequence[Tensor]) -> Piece:
    if not compiler_here():
        _say_once("no C++ compiler: the traced pieces of the walk run uncompiled")
        return graph
    try:
        # Unlike torch._inductor.compile it sets up what the cache on disk needs.
        return torch._inductor.standalone_compile(graph, list(arguments), dynamic_shapes="from_example_inputs")
    except (RuntimeError, OSError) as error:  # inductor's own errors derive from RuntimeError
        log.warning("%s could not be compiled (%s); the traced graph is used as it is", name, error)
        return graph
