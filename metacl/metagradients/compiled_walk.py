"""One task's walk with its pieces compiled: the same problem, through the graphs of compiled.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from metacl.learners.base import Params
from metacl.metagradients.base import InnerProblem
from metacl.metagradients.compiled import BoundFunction, CompiledFunction
from metacl.metagradients.trajectory_memory import TrajectoryMemory


class CompiledWalk:
    """The compiled pieces of one task. What of the problem cannot be traced stays as it is.

    Parameters
    ----------
    problem : InnerProblem
    mixed : bool
        Whether the inner gradient is taken in φ, too.

    Attributes
    ----------
    memory : TrajectoryMemory
        For the θ_k of this walk.
    """

    def __init__(self, problem: InnerProblem, mixed: bool = False) -> None:
        self.memory = TrajectoryMemory(problem.loop.steps)
        self._given = problem
        self._mixed = mixed
        self._gradient: BoundFunction | None = None

    @property
    def problem(self) -> InnerProblem:
        """The problem with its start and its query loss compiled."""
        # Made anew, not held: a cycle of references would keep the task's tensors until Python looks for cycles.
        return replace(self._given, start=self._start, query_loss=self._query_loss)

    def gradient(self, tensors: Sequence[Tensor]) -> BoundFunction | None:
        """(θ…, φ…) -> (L_S, gradient…) for tensors of these shapes; None if it cannot be compiled."""
        traced = self._given.traced
        if self._gradient is None and traced is not None:
            wanted = len(tensors) if self._mixed else len(traced.inner)
            self._gradient = self._bound(traced.compiled_gradient(list(self._given.meta), wanted), tensors)
        return self._gradient

    def _start(self, phi: Params) -> Params:
        traced, tensors = self._given.traced, tuple(phi.values())
        if traced is None:
            return self._given.start(phi)
        piece = self._bound(traced.compiled_start(list(phi)), tensors)
        if piece is not None:
            return dict(zip(traced.inner, piece(tensors, share=1.0), strict=True))
        theta = self._given.start(phi)
        return {name: theta[name] for name in traced.inner}

    def _query_loss(self, theta: Params, phi: Params) -> Tensor:
        traced, tensors = self._given.traced, (*theta.values(), *phi.values())
        piece = None if traced is None else self._bound(traced.compiled_query_loss(list(phi)), tensors)
        if piece is None:
            return self._given.query_loss(theta, phi)
        (loss,) = piece(tensors, share=1.0)
        return loss

    def _bound(self, function: CompiledFunction | None, tensors: Sequence[Tensor]) -> BoundFunction | None:
        return None if function is None else function.bind(tensors, self._given.data)
