"""Encoded examples of a stream, and minibatches of any of them.

What lies below the first adapted layer is computed when an experience is first asked for, once; a minibatch only picks
rows, and goes through the model in groups of similar length. Within a group shorter rows are filled up with zeros that
no model here looks at: their attention mask is zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from metacl.continual.experience import Address, Examples, Stream
from metacl.errors import ConfigError
from metacl.learners.base import Batch, Group, Learner
from metacl.learners.length_groups import length_groups

MASK = "attention_mask"


@dataclass(frozen=True)
class Minibatch:
    """B training examples.

    addresses : where they come from, as many as `batch` has.
    allowed : (B, N), the classes that each may be told apart from; None for all.
    """

    addresses: tuple[Address, ...]
    batch: Batch
    allowed: Tensor | None


class Pool:
    """See the module.

    Parameters
    ----------
    rows : int
        Examples that are encoded together, and asked together in a test.
    columns : Tensor or None
        (T, N), the classes allowed in each experience's examples; None for all.
    """

    def __init__(self, learner: Learner, stream: Stream, rows: int, columns: Tensor | None = None) -> None:
        self.stream = stream
        self.columns = columns
        self._learner = learner
        self._rows = rows
        self._encoded: dict[tuple[str, int], list[Batch]] = {}
        self._places: dict[int, list[tuple[Group, int]]] = {}
        self._targets: dict[int, Tensor] = {}

    def minibatch(self, addresses: Sequence[Address]) -> Minibatch:
        """Training examples together, in the order given."""
        rows = [self._row(address) for address in addresses]
        labels = [self.targets(experience)[place] for experience, place in addresses]
        members = length_groups([length_of(row) for row in rows])
        order = torch.tensor([place for group in members for place in group]).argsort()
        batch = Batch([joined([rows[place] for place in group]) for group in members], order, torch.stack(labels))
        allowed = None if self.columns is None else self.columns[[experience for experience, _ in addresses]]
        return Minibatch(tuple(addresses), batch, allowed)

    def minibatches(self, addresses: Sequence[Address], size: int) -> Iterator[Minibatch]:
        """All of them, `size` at a time."""
        for first in range(0, len(addresses), size):
            yield self.minibatch(addresses[first : first + size])

    def test(self, experience: int) -> list[Batch]:
        """An experience's test examples."""
        return self._encode("test", experience, self.stream.experiences[experience].test)

    def targets(self, experience: int) -> Tensor:
        """What the loss compares the training examples with, (B,)."""
        if experience not in self._targets:
            found = [batch.targets for batch in self._train(experience)]
            self._targets[experience] = torch.cat([targets for targets in found if targets is not None])
        return self._targets[experience]

    def _train(self, experience: int) -> list[Batch]:
        return self._encode("train", experience, self.stream.experiences[experience].train)

    def _encode(self, part: str, experience: int, examples: Examples) -> list[Batch]:
        if (part, experience) not in self._encoded:
            self._encoded[part, experience] = [
                self._learner.encode(chunk.inputs, list(chunk.labels))
                for first in range(0, len(examples), self._rows)
                for chunk in [examples.take(range(first, min(first + self._rows, len(examples))))]
            ]
        return self._encoded[part, experience]

    def _row(self, address: Address) -> tuple[Group, int]:
        experience, place = address
        if experience not in self._places:
            self._places[experience] = [row for batch in self._train(experience) for row in rows_of(batch)]
        return self._places[experience][place]


def rows_of(batch: Batch) -> list[tuple[Group, int]]:
    """Where each example of a batch stands: its group, and the row there. Raises `ConfigError` for shared rows."""
    if any(group.pool is not None for group in batch.groups):
        raise ConfigError(
            "learner.padding: packed lays several texts into a row, and a minibatch here picks texts. "
            "Set learner.padding=groups."
        )
    rows = [(group, row) for group in batch.groups for row in range(len(next(iter(group.inputs.values()))))]
    return [rows[place] for place in batch.order.tolist()]


def length_of(row: tuple[Group, int]) -> int:
    """Tokens that a row needs; 0 where rows have no lengths."""
    group, place = row
    return int(group.inputs[MASK][place].nonzero().max()) + 1 if MASK in group.inputs else 0


def joined(rows: Sequence[tuple[Group, int]]) -> Group:
    """Rows of several groups as one group, as long as the longest of them needs."""
    names = list(rows[0][0].inputs)
    inputs = {name: _stacked([group.inputs[name][row] for group, row in rows]) for name in names}
    prefixes = [group.prefix[row] for group, row in rows if group.prefix is not None]
    prefix = _stacked(prefixes) if prefixes else None
    if MASK in inputs:
        length = max(map(length_of, rows))
        inputs = {name: tensor[:, :length] for name, tensor in inputs.items()}
        prefix = None if prefix is None else prefix[:, :length]
    return Group(inputs, prefix)


def _stacked(rows: list[Tensor]) -> Tensor:
    """(B, L, …) from rows (L_b, …), the shorter ones with zeros at their ends."""
    lengths = {row.shape[0] for row in rows if row.dim()}
    if len(lengths) <= 1:
        return torch.stack(rows)
    longest = max(lengths)
    return torch.stack([F.pad(row, (*(0, 0) * (row.dim() - 1), 0, longest - row.shape[0])) for row in rows])
