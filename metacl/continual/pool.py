"""Encoded examples of a stream, and minibatches of any of them.

What lies below the first adapted layer is computed when an experience is first asked for, once; a minibatch only picks
rows, and goes through the model in groups of similar length. Within a group shorter rows are filled up with zeros that
no model here looks at: their attention mask is zero.

The ranks of a worker group encode a part each, and tell each other: any example may be any rank's in a minibatch, which
they share as they share every batch.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from metacl.continual.experience import Address, Examples, Stream
from metacl.errors import ConfigError
from metacl.learners.base import Batch, Group, Learner
from metacl.learners.length_groups import length_groups
from metacl.learners.ranks import RankGroup

MASK = "attention_mask"


Row = tuple[tuple[Group, int], Tensor]
"""An example: its group and the row there, and its target."""


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
    by_time : bool
        Columns are of the experience that is being learned, whichever an example comes from.
    """

    def __init__(
        self, learner: Learner, stream: Stream, rows: int, columns: Tensor | None = None, by_time: bool = False
    ) -> None:
        self.stream = stream
        self.columns = columns
        self._by_time = by_time
        self._learner = learner
        self._rows = rows
        self._tests: dict[int, list[Batch]] = {}
        self._held: dict[int, dict[int, Row]] = {}

    def minibatch(self, addresses: Sequence[Address], now: int = 0) -> Minibatch:
        """Training examples together, in the order given. now : the experience that is being learned."""
        found = [self._row(address) for address in addresses]
        rows, targets = [row for row, _ in found], torch.stack([target for _, target in found])
        lengths = [length_of(row) for row in rows]
        everyones = length_groups(lengths)
        members, order = self._learner.ranks.share(everyones)
        groups = [
            joined([rows[place] for place in own], max(lengths[place] for place in together))
            for together, own in zip(everyones, members, strict=True)
        ]
        batch = Batch(groups, order.to(self._learner.device), targets)
        return Minibatch(tuple(addresses), batch, self.allowed(addresses, now))

    def allowed(self, addresses: Sequence[Address], now: int) -> Tensor | None:
        """The classes that each training example may be told apart from, (B, N); None for all."""
        if self.columns is None:
            return None
        return self.columns[[now if self._by_time else experience for experience, _ in addresses]]

    def alone(self, addresses: Sequence[Address]) -> Pool:
        """The same examples for minibatches that are this rank's own. addresses : all that any rank will ask for."""
        for address in addresses:
            self._row(address)  # what is not there is encoded by all ranks together
        view = copy.copy(self)
        view._learner = self._learner.alone()
        return view

    def minibatches(self, addresses: Sequence[Address], size: int, now: int = 0) -> Iterator[Minibatch]:
        """All of them, `size` at a time."""
        for first in range(0, len(addresses), size):
            yield self.minibatch(addresses[first : first + size], now)

    def test(self, experience: int) -> list[Batch]:
        """An experience's test examples."""
        if experience not in self._tests:
            self._tests[experience] = self._encoded(self.stream.experiences[experience].test)
        return self._tests[experience]

    def keep(self, addresses: Collection[Address]) -> None:
        """Let go of all training examples but these. What is asked for later is encoded again, to the same bits."""
        places: dict[int, set[int]] = {}
        for experience, place in addresses:
            places.setdefault(experience, set()).add(place)
        self._held = {
            experience: {place: alone(row) for place, row in self._held[experience].items() if place in wanted}
            for experience, wanted in places.items()
            if experience in self._held
        }

    def _encoded(self, examples: Examples) -> list[Batch]:
        parts = [range(first, min(first + self._rows, len(examples))) for first in range(0, len(examples), self._rows)]
        chunks = [examples.take(part) for part in parts]
        return [self._learner.encode(chunk.inputs, list(chunk.labels)) for chunk in chunks]

    def _row(self, address: Address) -> Row:
        experience, place = address
        if place not in self._held.get(experience, {}):
            # All of it, because what a row is may depend on the last bit on those it is encoded with.
            ranks = self._learner.ranks
            batches = [exchanged(batch, ranks) for batch in self._encoded(self.stream.experiences[experience].train)]
            self._held[experience] = dict(enumerate(row for batch in batches for row in rows_of(batch)))
        return self._held[experience][place]


def exchanged(batch: Batch, ranks: RankGroup) -> Batch:
    """A batch with the rows of all ranks. Raises `ConfigError` for rows that texts share."""
    if any(group.pool is not None for group in batch.groups):
        raise ConfigError(
            "learner.padding: packed lays several texts into a row, and a minibatch here picks texts. "
            "Set learner.padding=groups."
        )
    groups = [
        Group(
            {name: ranks.exchange(tensor) for name, tensor in group.inputs.items()},
            None if group.prefix is None else ranks.exchange(group.prefix),
        )
        for group in batch.groups
    ]
    return Batch(groups, batch.order, batch.targets)


def rows_of(batch: Batch) -> list[Row]:
    """Every example of a batch by itself; all are here."""
    rows = [(group, row) for group in batch.groups for row in range(len(next(iter(group.inputs.values()))))]
    assert batch.targets is not None, "a row needs a target"
    return [(rows[place], target) for place, target in zip(batch.order.tolist(), batch.targets, strict=True)]


def alone(row: Row) -> Row:
    """A row that holds no other one's memory."""
    (group, place), target = row
    inputs = {name: tensor[place : place + 1].clone() for name, tensor in group.inputs.items()}
    prefix = None if group.prefix is None else group.prefix[place : place + 1].clone()
    return (Group(inputs, prefix), 0), target.clone()


def length_of(row: tuple[Group, int]) -> int:
    """Tokens that a row needs; 0 where rows have no lengths."""
    group, place = row
    return int(group.inputs[MASK][place].nonzero().max()) + 1 if MASK in group.inputs else 0


def joined(rows: Sequence[tuple[Group, int]], length: int) -> Group:
    """Rows of several groups as one group, `length` tokens long where rows have lengths."""
    names = list(rows[0][0].inputs)
    inputs = {name: _stacked([group.inputs[name][row] for group, row in rows]) for name in names}
    prefixes = [group.prefix[row] for group, row in rows if group.prefix is not None]
    prefix = _stacked(prefixes) if prefixes else None
    if MASK in inputs:
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
