"""Parameters of which each rank of a group holds a part, and what must then go over all ranks.

A part is flat: the ranks' parts one after the other are the parameter's numbers, and zeros so that all are equally
long. What works number by number (inner optimizers, trajectories, differences) needs to know nothing of it; lengths,
and step sizes that many numbers share, do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from metacl.learners.ranks import RankGroup


@dataclass(frozen=True)
class Partition:
    """Which tensors are parts; all others are whole, and the same, on every rank.

    ranks : who holds the parts. shapes : of the wholes, of those parameters that are parts. Default: none are.
    """

    ranks: RankGroup = field(default_factory=RankGroup)
    shapes: Mapping[str, torch.Size] = field(default_factory=dict)

    def square_sum(self, tensors: Iterable[tuple[str, Tensor]]) -> float:
        """Of all numbers of the named tensors, on all ranks, in float64; the same on every rank."""
        own: list[Tensor] = []
        shared: list[Tensor] = []
        for name, tensor in tensors:
            (own if name in self.shapes else shared).append(tensor.detach().double().square().sum())
        of_parts = float(self.ranks.total(torch.stack(own).sum())) if own else 0.0
        return of_parts + (float(torch.stack(shared).sum()) if shared else 0.0)

    def norm(self, tensors: Iterable[tuple[str, Tensor]]) -> float:
        """Euclidean length of all tensors as one vector."""
        return self.square_sum(tensors) ** 0.5

    def rates(self, rates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Step sizes for use on parts: the gradient of one that all numbers share is summed over the ranks."""
        shared = {n: r for n, r in rates.items() if n in self.shapes and r.dim() == 0 and r.requires_grad}
        return {**rates, **self.ranks.spread(shared)}


def part_of(whole: Tensor, ranks: RankGroup) -> Tensor:
    """This rank's part of a tensor, a copy."""
    count = part_size(whole.numel(), ranks.size)
    own = whole.reshape(-1)[ranks.rank * count : (ranks.rank + 1) * count]
    return torch.cat([own, own.new_zeros(count - own.numel())])


def part_size(numbers: int, ranks: int) -> int:
    """How long a part is of that many numbers."""
    return -(-numbers // ranks)
