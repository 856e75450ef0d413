"""The ranks of a worker group sharing one batch, so that a loss is that of the whole batch on every rank.

Parameters are the same on all ranks; between `spread` and `collect` each rank computes rows of its own. Two conjugate
operators stand at the borders (Shoeybi et al. 2019, "Megatron-LM", sec. 3, fig. 3: f and g): the identity whose
backward is a sum over ranks, and a sum over ranks whose backward is the identity. Each is the other's backward, so
derivatives of any order are right, and nobody else needs to know that there are several ranks. Where a rank holds a
part of a parameter only, the pair is `joined` and its backward: all parts put together for use on own rows, and each
rank's part of the sum over ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class RankLost(RuntimeError):
    """Another rank of the group is gone, or does not answer."""


@contextmanager
def collective() -> Iterator[None]:
    """Around a message among the ranks: what breaks there is the loss of a rank."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost(f"a message among the ranks failed ({str(error).splitlines()[0]})") from error


@dataclass(frozen=True)
class RankGroup:
    """Where this process stands among the `size` ranks of its group (one: it is alone, and nothing is sent)."""

    rank: int = 0
    size: int = 1

    def share(self, groups: Sequence[Sequence[int]]) -> tuple[list[list[int]], Tensor]:
        """Which examples of a batch are this rank's.

        Parameters
        ----------
        groups : lists of positions
            A partition of 0 … B−1; each list goes through the model together.

        Returns
        -------
        mine : list of list of int
            This rank's part of every list, as many on each rank, so that all ranks run the same sequence of
            forwards on the same shapes. Where a list does not divide, its first positions are computed twice.
        order : (B,)
            Where in the rows that `collect` returns each example stands. Second copies stand nowhere.
        """
        mine: list[list[int]] = []
        places: dict[int, int] = {}
        rows = 0
        for positions in groups:
            count = -(-len(positions) // self.size)
            mine.append([positions[(row * self.size + self.rank) % len(positions)] for row in range(count)])
            places.update({position: rows * self.size + place for place, position in enumerate(positions)})
            rows += count
        return mine, torch.tensor([places[position] for position in range(len(places))], dtype=torch.long)

    def spread(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same tensors for use on own rows: their gradients are summed over the ranks, in one message."""
        if self.size == 1 or not params:
            return params
        whole = _Spread.apply(torch.cat([tensor.reshape(-1) for tensor in params.values()]))
        parts = whole.split([tensor.numel() for tensor in params.values()])
        return {name: part.view(tensor.shape) for (name, tensor), part in zip(params.items(), parts, strict=True)}

    def collect(self, rows: Tensor) -> Tensor:
        """All ranks' rows, (n, …) -> (n · size, …), the ranks' first rows first; the same on every rank."""
        if self.size == 1:
            return rows
        others = rows.new_zeros(rows.shape)
        placed = torch.stack([rows if rank == self.rank else others for rank in range(self.size)], dim=1)
        return _Collect.apply(placed).flatten(0, 1)

    def joined(self, part: Tensor) -> Tensor:
        """The ranks' parts (n,) one after the other, (n · size,), for use on own rows; backward is `reduce_scatter`."""
        return _Join.apply(part, self)

    def gather(self, part: Tensor) -> Tensor:
        """`joined`, without a derivative."""
        whole = part.new_empty(self.size * part.numel())
        with collective():
            dist.all_gather_single(whole, part.contiguous())
        return whole

    def exchange(self, rows: Tensor) -> Tensor:
        """`collect` for what has no derivative, of any type and to the bit: it sums nothing."""
        if self.size == 1:
            return rows
        raw = self.gather(rows.contiguous().reshape(-1).view(torch.uint8))
        return raw.view(rows.dtype).view(self.size, *rows.shape).transpose(0, 1).flatten(0, 1)

    def portion(self, items: Sequence[T]) -> Iterator[tuple[Sequence[T], T, bool]]:
        """Items one by one, each on one rank, for what the ranks compute apart; as many steps on every rank.

        Yields
        ------
        together : the items of this step, one a rank
        own : this rank's
        counts : bool
            False if another rank has the same one, because there are no more.
        """
        for first in range(0, len(items), self.size):
            together = items[first : first + self.size]
            yield together, together[self.rank % len(together)], self.rank < len(together)

    def reduce_scatter(self, whole: Tensor) -> Tensor:
        """This rank's part (n,) of the sum over ranks of (n · size,)."""
        part = whole.new_empty(whole.numel() // self.size)
        with collective():
            dist.reduce_scatter_single(part, whole.contiguous())
        return part

    def total(self, value: Tensor) -> Tensor:
        """The sum over ranks, the same bits on each, without a derivative."""
        return value if self.size == 1 else _Collect.apply(value.detach())


class _Spread(torch.autograd.Function):
    """The identity; backward sums over ranks."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Collect.apply(gradient)


class _Collect(torch.autograd.Function):
    """The sum over ranks; backward is the identity."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.contiguous().clone()
        with collective():
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Spread.apply(gradient)


class _Join(torch.autograd.Function):
    """All ranks' parts; backward is a rank's part of the sum over ranks."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, ranks: RankGroup) -> Tensor:
        ctx.ranks = ranks
        return ranks.gather(part)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _SumPart.apply(gradient, ctx.ranks), None


class _SumPart(torch.autograd.Function):
    """A rank's part of the sum over ranks; backward is all ranks' parts."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, ranks: RankGroup) -> Tensor:
        ctx.ranks = ranks
        return ranks.reduce_scatter(whole)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Join.apply(gradient, ctx.ranks), None
