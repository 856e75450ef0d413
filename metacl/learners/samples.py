"""Answers drawn from a model, so that it can be adapted by a reward instead of by targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Samples:
    """G answers to each of B inputs, each of up to L actions (tokens, moves, or one choice).

    actions : (B, G, L) or (B, G, L, …). mask : (B, G, L), 1 where an action counts, 0 behind an answer's end.
    texts : the answers as text, B lists of G, where they are text. references : what each input's own text goes on
    with, B strings; for rewards to read.
    """

    actions: Tensor
    mask: Tensor
    texts: list[list[str]] | None = None
    references: list[str] | None = None


def choose(scores: Tensor, count: int, seed: int) -> Tensor:
    """`count` choices (B, count) from softmax(scores), scores (B, N): the inverse of the distribution at fixed numbers.

    The numbers depend on `seed` alone, so a small change of the scores almost never changes a choice.
    """
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(len(scores), count, generator=generator, dtype=torch.float64).to(scores.device)
    reached = scores.detach().double().softmax(-1).cumsum(-1)  # (B, N)
    return (uniform.unsqueeze(-1) > reached.unsqueeze(1)).sum(-1).clamp(max=scores.shape[-1] - 1)
