"""The gate of a mixture of adapters: how near examples are to what each expert learned from, by mean embedding.

As in Aljundi et al. 2017, "Expert Gate", but by embeddings instead of autoencoders. Who chooses or mixes by it does so.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def nearness(features: Tensor, keys: Tensor) -> Tensor:
    """Cosines (B, E) of B feature vectors (B, D) with the mean embeddings (E, D) of E experts."""
    return F.normalize(features, dim=-1) @ F.normalize(keys, dim=-1).T
