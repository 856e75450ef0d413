"""Named tensors as one flat float32 buffer: how parameters and gradients travel and are added up."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from metacl.learners.base import Params

Flat = NDArray[np.float32]

CACHED = 1 << 16
"""Numbers that are looked at twice while a core's cache still holds them."""


@dataclass(frozen=True)
class FlatLayout:
    """Which tensor lies where in the buffer: sorted by name, one after the other."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, params: Params) -> FlatLayout:
        """The layout of these tensors."""
        return cls(tuple((name, tuple(params[name].shape)) for name in sorted(params)))

    @property
    def size(self) -> int:
        """P, the numbers in the buffer."""
        return sum(math.prod(shape) for _, shape in self.shapes)

    def flatten(self, params: Params, into: Flat | None = None) -> Flat:
        """Copy the tensors into a new buffer (P,), or into the one given, as it takes long to touch new memory.

        Raises `ValueError` if they are not this layout's.
        """
        if FlatLayout.of(params) != self:
            raise ValueError("the tensors do not have this layout's names and shapes")
        flat = np.empty(self.size, np.float32) if into is None else into
        for name, view in self.views(flat).items():
            view.copy_(params[name].detach())
        return flat

    def views(self, flat: Flat) -> Params:
        """The tensors, in the buffer's memory."""
        params: Params = {}
        position, whole = 0, torch.from_numpy(flat)
        for name, shape in self.shapes:
            count = math.prod(shape)
            params[name] = whole[position : position + count].reshape(shape)
            position += count
        return params

    def unflatten(self, flat: Flat) -> Params:
        """The tensors, each in memory of its own: kernels may sum differently on differently aligned memory."""
        if flat.shape != (self.size,):
            raise ValueError(f"expected a buffer of {self.size} numbers, got shape {flat.shape}")
        params: Params = {}
        position = 0
        for name, shape in self.shapes:
            count = math.prod(shape)
            params[name] = torch.tensor(flat[position : position + count], dtype=torch.float32).reshape(shape)
            position += count
        return params


def cuts(size: int, parts: int) -> list[slice]:
    """`size` numbers in so many ranges, as even as can be."""
    return [slice(size * part // parts, size * (part + 1) // parts) for part in range(parts)]


def checksum(flat: Flat) -> str:
    """sha256 of the buffer's bytes."""
    return hashlib.sha256(np.ascontiguousarray(flat).data).hexdigest()


def examine(flat: Flat, expected: str) -> tuple[bool, bool]:
    """(the bytes are those that `expected` is of, all numbers are finite), in one pass over the memory."""
    digest, finite = hashlib.sha256(), True
    for begin in range(0, flat.size, CACHED):
        block = np.ascontiguousarray(flat[begin : begin + CACHED])
        digest.update(block.data)
        finite = finite and bool(np.isfinite(block).all())
    return digest.hexdigest() == expected, finite
