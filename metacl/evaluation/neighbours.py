"""The nearest of known feature vectors, found by a faiss index, vote for their classes.

Khandelwal et al. 2020, "Generalization through Memorization", eq. 2, without the language model's share.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

Vectors = NDArray[np.float32]

LEAST = np.finfo(np.float64).tiny
"""What a class without a vote has in its place."""

NO_VOTE = float(np.log(LEAST)) + 1
"""A class that scores less has none."""


def without_faiss() -> str | None:
    """What to say where faiss is not installed; None where it is."""
    if importlib.util.find_spec("faiss") is None:
        return "it needs faiss, which is not installed. Install it: pip install faiss-cpu"
    return None


def unit(features: Tensor) -> Vectors:
    """Of length 1, (B, D), float32."""
    found: Vectors = normalize(features, dim=-1).float().cpu().numpy()
    return found


def index_of(vectors: Vectors) -> Any:
    """Exact search by inner product."""
    import faiss  # optional: see `without_faiss`

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    return index


def votes(
    index: Any, labels: NDArray[np.int64], asked: Vectors, neighbours: int, temperature: float, ways: int
) -> Tensor:
    """Log of the sum of exp((cosine − 1) / temperature) over the neighbours of each class, (B, N) in float64.

    Parameters
    ----------
    index, labels : of M known vectors of length 1, and their classes (M,).
    asked : (B, D), of length 1. neighbours : at most so many vote. ways : N.
    """
    cosines, places = index.search(asked, min(neighbours, len(labels)))
    found = np.zeros((len(asked), ways))
    rows = np.arange(len(asked))[:, None]
    np.add.at(found, (rows, labels[places]), np.exp((cosines - 1) / temperature))
    return torch.from_numpy(np.log(found + LEAST))
