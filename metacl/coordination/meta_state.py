"""Where the meta-parameters lie and how they move: here, in the coordinator's process, or in parts, one a rank.

In parts, no process holds all of them, the coordinator's neither. A part is a rank's parameters with their outer
optimizer and their gradients (`MetaPart`, in a process of its own); the ranks of every group get them from there and
send their gradients there. What is not in parts (a head, step sizes that many numbers share) is the same in every part,
bit for bit, since its gradient is; the first part's counts where lengths are taken.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from metacl.config import OuterLoop, RunConfig
from metacl.coordination.checkpoint import Checkpoint, PartTensors
from metacl.coordination.flat import Flat, FlatLayout
from metacl.coordination.gathering import GradientsLost
from metacl.coordination.outer import OuterOptimizer
from metacl.coordination.shards import GradientShard
from metacl.coordination.worker import Parameters, PartedGradient, PartedMeta
from metacl.errors import TrainingError
from metacl.learners.base import Params
from metacl.learners.partition import Partition


class MetaState(ABC):
    """The meta-parameters and the outer optimizer's state."""

    @abstractmethod
    def broadcast(self) -> Flat | PartedMeta:
        """The parameters as executors take them."""

    @abstractmethod
    def move(self, gradient: Flat | PartedGradient, step: int) -> float:
        """Take outer step `step` (from 0). The gradient's norm. Raises `TrainingError` if what comes is not finite."""

    @abstractmethod
    def checkpoint(self, step: int, held_out: dict[str, Any]) -> Checkpoint:
        """What is to be saved."""

    @abstractmethod
    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from there, bit for bit."""

    @property
    @abstractmethod
    def for_replay(self) -> Params:
        """What is kept of a step in which a task failed: the parameters, or nothing where no process can hold them."""

    @property
    @abstractmethod
    def meta(self) -> Mapping[str, Tensor]:
        """The parameters by name, whole; where they lie in parts, one is put together when it is asked for."""


class WholeState(MetaState):
    """All of it here."""

    def __init__(self, config: OuterLoop, initial: Params) -> None:
        self._outer = OuterOptimizer(config, initial)
        self._layout = FlatLayout.of(initial)
        self._buffer = np.empty(self._layout.size, np.float32)
        self._flat: Flat | None = None

    def broadcast(self) -> Flat:
        """Always in the same buffer, but another view of it after every step."""
        if self._flat is None:
            self._flat = self._layout.flatten(self._outer.meta, self._buffer)[:]
        return self._flat

    def move(self, gradient: Flat | PartedGradient, step: int) -> float:
        """See `MetaState.move`."""
        assert not isinstance(gradient, PartedGradient)
        norm = self._outer.step(self._layout.views(gradient), step)
        self._flat = None
        if not self._outer.finite():
            raise not_finite(step)
        return norm

    def checkpoint(self, step: int, held_out: dict[str, Any]) -> Checkpoint:
        """Both files."""
        return Checkpoint(step, self._outer.meta, self._outer.state(), held_out)

    def restore(self, checkpoint: Checkpoint) -> None:
        """See `MetaState.restore`."""
        self._outer.restore(checkpoint.meta, checkpoint.outer_state)
        self._flat = None

    @property
    def for_replay(self) -> Params:
        """All of them."""
        return self._outer.meta

    @property
    def meta(self) -> Params:
        """Copies."""
        return {name: parameter.detach().clone() for name, parameter in self._outer.meta.items()}


def not_finite(step: int) -> TrainingError:
    """What is to be said of meta-parameters that are not."""
    return TrainingError(f"outer step {step}: the meta-parameters are not finite. Lower outer.learning_rate.")


@dataclass(frozen=True)
class PartLayout:
    """Of any part: all have the same. parted : names of the meta-parameters that are parts."""

    flat: FlatLayout
    parted: frozenset[str]


class MetaPart:
    """One part. Knows nothing of the others but what it is told.

    Parameters
    ----------
    first : whether what is not in parts counts here.
    """

    def __init__(self, config: OuterLoop, first: bool) -> None:
        self._config, self._first = config, first
        self.gradients = GradientShard(config.aggregator)
        self._gradient: Params = {}

    def start(self, layout: PartLayout, flat: Flat) -> None:
        """Begin at these parameters."""
        self._layout, self._parted = layout.flat, layout.parted
        self._outer = OuterOptimizer(self._config, self._layout.unflatten(flat))

    def restore(self, layout: PartLayout, meta: Params, outer_state: dict[str, Tensor]) -> None:
        """Begin where a checkpoint ends."""
        self.start(layout, layout.flat.flatten(meta))
        self._outer.restore(meta, outer_state)

    def parameters(self) -> Parameters:
        """As a rank takes them."""
        return Parameters.of(self._layout.flatten(self._outer.meta))

    def square_sum(self, portions: int) -> float | None:
        """Of this part of the step's gradient, in float64; None if not all portions are here."""
        combined = self.gradients.result(portions)
        if combined is None:
            return None
        self._gradient = self._layout.unflatten(combined.numbers)
        counted = [g for name, g in self._gradient.items() if self._first or name in self._parted]
        return math.fsum(float(np.square(g.numpy(), dtype=np.float64).sum()) for g in counted)

    def move(self, step: int, norm: float) -> bool:
        """Take the step, whose whole gradient has this norm. Whether the parameters are finite then."""
        self._outer.step(self._gradient, step, norm)
        self._gradient = {}
        return self._outer.finite()

    def tensors(self) -> PartTensors:
        """For a checkpoint."""
        return {name: p.detach() for name, p in self._outer.meta.items()}, self._outer.state()

    def numbers(self, name: str) -> Tensor:
        """This part of one meta-parameter."""
        return self._outer.meta[name].detach()


class Parts(Protocol):
    """The processes that hold the parts, as the coordinator speaks to them."""

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """What every part answers, all at once."""
        ...

    def ask_one(self, part: int, method: str, *arguments: Any) -> Any:
        """What one answers."""
        ...

    def take_initial(self, layout: PartLayout, initial: Sequence[Any]) -> None:
        """Begin at what the ranks of a group start with."""
        ...


class HoldsParts(Protocol):
    """An executor whose ranks hold the meta-parameters in parts, as do processes beside them."""

    parts: Parts

    def initial_parts(self) -> Sequence[Any]:
        """What the ranks of a group start with, as `Parts.take_initial` has it."""
        ...


class PartedState(MetaState):
    """The coordinator's view of parts."""

    def __init__(
        self, config: RunConfig, initial: Params, partition: Partition, executor: HoldsParts, from_the_start: bool
    ) -> None:
        self._layout = PartLayout(FlatLayout.of(initial), frozenset(partition.shapes))
        self._partition, self._parts = partition, executor.parts
        self._count = config.workers.ranks_per_group
        self._meta: PartedMeta | None = None
        if from_the_start:
            self._parts.take_initial(self._layout, executor.initial_parts())

    def broadcast(self) -> PartedMeta:
        """Where the parts are; the same object until they move."""
        if self._meta is None:
            found = self._parts.ask("broadcast")
            self._meta = PartedMeta(found[0][0], tuple(reference for _, reference in found))
        return self._meta

    def move(self, gradient: Flat | PartedGradient, step: int) -> float:
        """Each part its own."""
        assert isinstance(gradient, PartedGradient)
        self._meta = None
        if not all(self._parts.ask("move", step, gradient.norm)):
            raise not_finite(step)
        return gradient.norm

    def checkpoint(self, step: int, held_out: dict[str, Any]) -> Checkpoint:
        """The parts are fetched as they are written, one at a time."""
        return Checkpoint(step, {}, {}, held_out, _Fetched(self._parts, self._count))

    def restore(self, checkpoint: Checkpoint) -> None:
        """The parts are read one at a time."""
        self._meta = None
        for number, (meta, outer_state) in enumerate(checkpoint.parts):
            self._parts.ask_one(number, "restore", self._layout, meta, outer_state)

    @property
    def for_replay(self) -> Params:
        """Nothing."""
        return {}

    @property
    def meta(self) -> Mapping[str, Tensor]:
        """See `MetaState.meta`."""
        return _PutTogether([name for name, _ in self._layout.flat.shapes], self._partition, self._parts)


@dataclass(frozen=True)
class _Fetched(Collection[PartTensors]):
    """What the parts hold, fetched one by one."""

    parts: Parts
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[PartTensors]:
        return (self.parts.ask_one(number, "tensors") for number in range(self.count))

    def __contains__(self, _: object) -> bool:
        return False


@dataclass(frozen=True)
class _PutTogether(Mapping[str, Tensor]):
    """Whole meta-parameters, each made of its parts when it is asked for."""

    names: Sequence[str]
    partition: Partition
    parts: Parts

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> Tensor:
        shape = self.partition.shapes.get(name)
        if shape is None:
            return self.parts.ask_one(0, "numbers", name)
        return torch.cat(self.parts.ask("numbers", name))[: shape.numel()].view(shape)


def norm_of(square_sums: Sequence[float | None]) -> float:
    """Of a gradient in parts. Raises `GradientsLost` if a part does not have all of it."""
    sums = [part for part in square_sums if part is not None]
    if len(sums) < len(square_sums):
        raise GradientsLost("a part of the meta-parameters does not have all gradients")
    return math.sqrt(math.fsum(sums))
