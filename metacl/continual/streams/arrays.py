"""Streams of arrays, for use from Python: images whose pixels are permuted, or that are turned.

Permuted pixels: Goodfellow et al. 2013, sec. 4; rotated images: Lopez-Paz & Ranzato 2017, "GEM", sec. 5.1. The labels
stay the same, so these are domain-incremental.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import rotate

from metacl.continual.experience import Examples, Experience, Stream
from metacl.continual.streams.base import random_of

Part = tuple[NDArray[np.float32], Sequence[int]]
"""Images (B, H, W) and labels (B,)."""


def permuted(train: Part, test: Part, experiences: int, seed: int, class_names: Sequence[str]) -> Stream:
    """The images as rows (B, H·W), their pixels in an order of each experience's own; in the first, in place."""
    pixels = train[0][0].size
    found = []
    for k in range(experiences):
        order = list(range(pixels)) if k == 0 else random_of(seed, k, 0).sample(range(pixels), pixels)
        parts = [Examples(x.reshape(len(x), -1)[:, order], tuple(map(int, y))) for x, y in (train, test)]
        found.append(Experience(f"permutation {k}", *parts))
    return Stream(tuple(found), tuple(class_names))


def rotated(train: Part, test: Part, degrees: Sequence[float], class_names: Sequence[str]) -> Stream:
    """The images as rows (B, H·W), turned by so many degrees in each experience (bilinear; what comes in is 0)."""
    found = []
    for angle in degrees:
        parts = []
        for x, y in (train, test):
            turned = rotate(x, angle, axes=(1, 2), reshape=False, order=1) if angle else x
            parts.append(Examples(turned.reshape(len(x), -1).astype(x.dtype), tuple(map(int, y))))
        found.append(Experience(f"{angle:g} degrees", *parts))
    return Stream(tuple(found), tuple(class_names))
