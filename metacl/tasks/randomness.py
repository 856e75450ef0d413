"""Random choices that depend on an address alone, the same on every platform and numpy version.

numpy promises the raw output of a bit generator to be stable, but not the streams of `Generator.choice`
or `permutation`; so the few draws we need are built here from raw 64-bit words.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from metacl.tasks.episode import TaskAddress

T = TypeVar("T")


class AddressedRandom:
    """A random stream keyed by a task address (Philox 4x64, counter based)."""

    def __init__(self, address: TaskAddress) -> None:
        split = zlib.crc32(address.split.encode())
        key = np.array([np.uint64(address.seed), np.uint64(split)], dtype=np.uint64)
        counter = np.array([0, 0, address.step, address.index], dtype=np.uint64)
        self._bits = np.random.Philox(key=key, counter=counter)

    def below(self, bound: int) -> int:
        """A uniform integer in [0, bound), without modulo bias (rejection)."""
        limit = (1 << 64) - (1 << 64) % bound
        while True:
            word = int(self._bits.random_raw())
            if word < limit:
                return word % bound

    def uniform(self, low: float, high: float) -> float:
        """A uniform number in [low, high)."""
        return float(self.uniforms(low, high, 1)[0])

    def uniforms(self, low: float, high: float, count: int) -> NDArray[np.float64]:
        """`count` numbers as that many calls of `uniform` give them, (count,)."""
        words = self._bits.random_raw(count) & np.uint64((1 << 53) - 1)  # a power of two: nothing to reject
        return low + (high - low) * words.astype(np.float64) / (1 << 53)

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different items in random order (partial Fisher-Yates)."""
        pool = list(items)
        for position in range(count):
            other = position + self.below(len(pool) - position)
            pool[position], pool[other] = pool[other], pool[position]
        return pool[:count]
