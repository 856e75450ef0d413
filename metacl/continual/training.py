"""How an experience is learned: passes, batches, the optimizer, what of the model is trained, where the head starts."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from metacl.adaptation import INNER_OPTIMIZERS
from metacl.adaptation.optimizers import InnerOptimizer
from metacl.errors import ConfigError
from metacl.learners.base import HEAD, Params
from metacl.registry import Component, chosen_from, nearest


class Training(Component):
    """How every experience is learned. One pass with small batches is online learning: epochs=1, batch_size=10.

    epochs : 0 to learn nothing. shuffle : examples are drawn in an order of their own at each pass; false for the
    stream's. optimizer : starts afresh at each experience. learning_rate : of everything but the head;
    head_learning_rate : of the head, null for the same. only : names of what is trained, with * and ?, for example
    ["head.*"]; all if empty. head : a class's row starts at "zeros", or from the mean of its first training examples
    ("class_means", as ProtoMAML has it).
    """

    epochs: NonNegativeInt = 1
    batch_size: PositiveInt = 32
    shuffle: bool = True
    optimizer: Annotated[InnerOptimizer, chosen_from(INNER_OPTIMIZERS)] = INNER_OPTIMIZERS.build({"name": "sgd"})
    learning_rate: PositiveFloat = 0.1
    head_learning_rate: PositiveFloat | None = None
    only: tuple[str, ...] = ()
    head: Literal["zeros", "class_means"] = "zeros"

    def rates(self, names: Iterable[str]) -> Params:
        """Learning rate of each parameter; of higher precision, so that it changes no parameter's type."""
        head = self.head_learning_rate or self.learning_rate
        return {
            name: torch.tensor(head if name.startswith(HEAD) else self.learning_rate, dtype=torch.float64)
            for name in names
        }

    def split(self, params: Params) -> tuple[Params, Params]:
        """What is trained, and what is not. Raises `ConfigError` if a pattern of `only` matches nothing."""
        for pattern in self.only:
            if not any(fnmatchcase(name, pattern) for name in params):
                raise ConfigError(f"training.only: no parameter is called {pattern!r}. {nearest(pattern, params)}")
        trained = {n: t for n, t in params.items() if not self.only or any(fnmatchcase(n, p) for p in self.only)}
        return trained, {name: tensor for name, tensor in params.items() if name not in trained}
