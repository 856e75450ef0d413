"""One process too few? The mean of T gradients, its coordinates cut into shards, a process each: same bits, less time.

What a shard costs is what a coordinator per node would have to do, each on its own part of every gradient; here the
processes share this machine's cores.
"""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from metacl.aggregation import Contribution, Mean
from metacl.coordination.flat import checksum
from metacl.tasks import TaskAddress

BLOCK = 1_000_000
"""Numbers drawn at a time: so that each process can draw its own part of a gradient, wherever it begins."""


def part_of_gradient(task: int, begin: int, end: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Numbers `begin` to `end` (multiples of `BLOCK`) of a task's gradient, the same for any cut."""
    parts = [
        np.random.default_rng([task, block]).standard_normal(BLOCK, dtype=np.float32)
        for block in range(begin // BLOCK, end // BLOCK)
    ]
    return np.concatenate(parts)


def shard(begin: int, end: int, tasks: int) -> tuple[float, bytes]:
    """Seconds to check and combine this part of `tasks` gradients, and the combined part as float32 bytes."""
    gradients = [part_of_gradient(task, begin, end) for task in range(tasks)]
    sums = [checksum(gradient) for gradient in gradients]
    began = time.perf_counter()
    for gradient, expected in zip(gradients, sums, strict=True):
        assert checksum(gradient) == expected and np.isfinite(gradient).all()
    given = [Contribution(TaskAddress("train", 0, 0, task), gradient) for task, gradient in enumerate(gradients)]
    combined = Mean().combine(given).astype(np.float32)
    return time.perf_counter() - began, combined.tobytes()


def sharded(parameters: int, tasks: int, shards: int) -> dict[str, Any]:
    """All shards, each in a process of its own: the slowest one's seconds, and the sha256 of the whole."""
    step = parameters // BLOCK // shards * BLOCK
    cuts = [*range(0, step * shards, step), parameters]
    with ProcessPoolExecutor(shards) as pool:
        found = list(pool.map(shard, cuts[:-1], cuts[1:], [tasks] * shards))
    whole = hashlib.sha256(b"".join(part for _, part in found)).hexdigest()
    return {
        "parameters": parameters,
        "tasks": tasks,
        "shards": shards,
        "slowest_s": max(seconds for seconds, _ in found),
        "sha256": whole,
    }
