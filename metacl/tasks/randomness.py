"""Random choices that depend on an address alone, the same on every platform and numpy version.

numpy promises the raw output of a bit generator to be stable, but not the streams of `Generator.choice`
or `permutation`; so the few draws we need are built here from raw 64-bit words.
"""

from __future__ import annotations

import bisect
import itertools
import zlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from metacl.tasks.episode import TaskAddress

T = TypeVar("T")


class AddressedRandom:
    """A random stream keyed by a task address (Philox 4x64, counter based).

    Streams of one address with different numbers share no block of the generator, so they are independent.
    """

    def __init__(self, address: TaskAddress, stream: int = 0) -> None:
        split = zlib.crc32(address.split.encode())
        key = np.array([np.uint64(address.seed), np.uint64(split)], dtype=np.uint64)
        counter = np.array([0, stream, address.step, address.index], dtype=np.uint64)
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

    def normals(self, count: int) -> NDArray[np.float64]:
        """`count` independent standard normal numbers, (count,) (Box & Muller 1958)."""
        radius = np.sqrt(-2 * np.log(1 - self.uniforms(0.0, 1.0, count)))  # 1 − u is never 0
        return radius * np.cos(2 * np.pi * self.uniforms(0.0, 1.0, count))

    def between(self, low: int, high: int) -> int:
        """A uniform integer from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def weighted(self, weights: Sequence[float]) -> int:
        """A position, with probability in proportion to its weight."""
        edges = list(itertools.accumulate(weights))
        point = self.uniform(0.0, edges[-1])
        return min(bisect.bisect_right(edges, point), len(edges) - 1)

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different items in random order: partial Fisher-Yates, which touches only what it draws."""
        moved: dict[int, int] = {}  # where the shuffled pool differs from its beginning, so that it may be huge
        drawn = []
        for position in range(count):
            other = position + self.below(len(items) - position)
            drawn.append(items[moved.get(other, other)])
            moved[other] = moved.get(position, position)
        return drawn
