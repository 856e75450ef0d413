"""A strategy against forgetting: what it adds to the loss, does to the gradient, or keeps for later.

A strategy is a config's component and never changes. What it remembers is its state, a dict of tensors that every
function takes and gives back; nothing is changed in place, neither the state nor the loop's parameters. So strategies
combine by being listed, and a run is stored and goes on bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from metacl.continual.experience import Address, Stream
from metacl.continual.model import HEAD_BIAS, HEAD_WEIGHT, Model
from metacl.continual.moment import Moment
from metacl.continual.pool import Minibatch
from metacl.learners.base import Batch, Params
from metacl.registry import Component, Registry

State = dict[str, Tensor]
"""What a strategy remembers. Empty before the first experience."""

MEMORY = "memory"
"""The state's entry, (M, 2), that holds addresses of stored examples, for those strategies that store any."""


class Strategy(Component):
    """Base of all strategies; a new one overrides what it does. The defaults do nothing."""

    moves_at_end: ClassVar[bool] = False
    """Whether `end` returns other parameters than it gets."""
    asks_by_name: ClassVar[bool] = False
    """Whether it answers for a language model that is asked about classes by their names, and then trains nothing."""

    def check(self, model: Model, stream: Stream) -> None:
        """Raise `ConfigError` if it cannot work with this model, or for so many experiences."""

    def training_set(self, moment: Moment, addresses: list[Address], state: State) -> list[Address]:
        """The examples that the experience is learned from. Default: its own."""
        return addresses

    def begin(self, moment: Moment, params: Params, state: State) -> tuple[Params, State]:
        """Before an experience. Returns the parameters to begin with, and the state."""
        return params, state

    def replayed(self, moment: Moment, state: State) -> list[Address]:
        """Examples to go into the step's batch beside the new ones, under the same mean loss."""
        return []

    def penalty(
        self, moment: Moment, params: Params, minibatch: Minibatch, outputs: Tensor, state: State
    ) -> Tensor | None:
        """A scalar to add to the loss, differentiable in `params`. outputs : of the model on the minibatch."""
        return None

    def loss_gradient(
        self, moment: Moment, params: Params, minibatch: Minibatch, state: State
    ) -> tuple[Params, State] | None:
        """The gradient of an objective of its own in place of the mean loss's, and the state; None: it has none."""
        return None

    def gradient(self, moment: Moment, params: Params, gradient: Params, state: State) -> Params:
        """The gradient to go on with, given that of loss and penalties."""
        return gradient

    def rates(self, moment: Moment, rates: Params, state: State) -> Params:
        """The learning rate of each parameter at this step, given the training's; each broadcasts against its own."""
        return rates

    def settle(
        self, moment: Moment, before: Params, after: Params, task_gradient: Params, rates: Params, state: State
    ) -> tuple[Params, State]:
        """After an optimizer step: the parameters to go on with, and the state.

        task_gradient : of the loss without any penalty, where `wants_task_gradient`; else empty.
        rates : the learning rate of each parameter.
        """
        return after, state

    @property
    def wants_task_gradient(self) -> bool:
        """Whether `settle` needs the gradient of the loss alone."""
        return False

    @property
    def needs_double_backward(self) -> bool:
        """Whether it differentiates a gradient, which fused attention does not have."""
        return False

    def end(self, moment: Moment, params: Params, addresses: list[Address], state: State) -> tuple[Params, State]:
        """After an experience that was learned from `addresses`. Returns the parameters to go on with and the state."""
        return params, state

    def predict(self, moment: Moment, params: Params, batch: Batch, state: State) -> Tensor | None:
        """Outputs for test examples in place of the model's; None to leave it to the model."""
        return None

    def grown(self, state: State, start: Params) -> State:
        """The state for a head with more classes than it was made for. Default: zeros for the new ones."""
        return {name: _padded(name, tensor, start) for name, tensor in state.items()}


STRATEGIES: Registry[Strategy] = Registry("strategy", "strategies")


def asked_by_name(strategies: Sequence[Strategy]) -> bool:
    """Whether this is the one list of strategies that a language model on a stream of classes can have."""
    return len(strategies) == 1 and strategies[0].asks_by_name


def stored(state: State) -> list[Address]:
    """The addresses in a state's memory."""
    return [(int(k), int(place)) for k, place in state[MEMORY].tolist()] if MEMORY in state else []


def as_memory(addresses: Sequence[Address]) -> Tensor:
    """Addresses as a state holds them, (M, 2)."""
    return torch.tensor(addresses, dtype=torch.int64).reshape(-1, 2)


def under(prefix: str, params: Params) -> State:
    """Parameters as entries of a state, under ``prefix/``, copied."""
    return {f"{prefix}/{name}": tensor.detach().clone() for name, tensor in params.items()}


def held(state: State, prefix: str) -> Params:
    """What `under` put there; empty if nothing did."""
    return {name.removeprefix(f"{prefix}/"): t for name, t in state.items() if name.startswith(f"{prefix}/")}


def _padded(name: str, tensor: Tensor, start: Params) -> Tensor:
    for end in (HEAD_WEIGHT, HEAD_BIAS):
        if name.endswith(f"/{end}") and end in start:
            return torch.cat([tensor, tensor.new_zeros(len(start[end]) - len(tensor), *tensor.shape[1:])])
    return tensor
