"""Which tokens of a text are masked for a self-supervised loss: always the same of the same text, and at least one."""

from __future__ import annotations

import torch
from torch import Tensor

FRACTION = 0.15
"""Of tokens, as in BERT (Devlin et al. 2019, sec. 3.1)."""


def masked_places(ids: Tensor, attention: Tensor, special: list[int]) -> Tensor:
    """Places to mask, (B, L) of bool, from token ids and attention mask (B, L).

    A token is masked if a hash of it and its place falls below `FRACTION`, and so is the token with the least hash of
    each text, so that no text is without one. Special tokens are never masked.
    """
    place = torch.arange(ids.shape[1], device=ids.device)
    hashed = ((ids + 1) * 2654435761 + (place + 1) * 40503 * 65537) % 1000003
    allowed = attention.bool() & ~torch.isin(ids, torch.tensor(special, device=ids.device))
    hashed = torch.where(allowed, hashed, 1000003)
    least = hashed == hashed.min(dim=1, keepdim=True).values
    return allowed & ((hashed < FRACTION * 1000003) | least)
