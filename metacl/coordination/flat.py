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

    def flatten(self, params: Params) -> Flat:
        """Copy the tensors into a new buffer (P,). Raises `ValueError` if they are not this layout's."""
        if FlatLayout.of(params) != self:
            raise ValueError("the tensors do not have this layout's names and shapes")
        parts = [params[name].detach().to("cpu", torch.float32).reshape(-1) for name, _ in self.shapes]
        return torch.cat(parts).numpy() if parts else np.zeros(0, np.float32)

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
