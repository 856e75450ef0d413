"""What one shard of many does in a step, measured in a process of its own on a part of the real size.

Every shard has its range of every task's gradient: with as many shards as groups and four tasks a group that is 16 · P
bytes a step, whatever the number of groups.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np

from metacl.aggregation import Mean
from metacl.coordination.flat import checksum, cuts
from metacl.coordination.shards import Counted, GradientShard, Part
from metacl.tasks import TaskAddress


def shard_work(parameters: int, shards: int, tasks: int) -> dict[str, Any]:
    """CPU seconds of the first of `shards` shards for one step of `tasks` tasks."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_measure, parameters, shards, tasks).result()


def _measure(parameters: int, shards: int, tasks: int) -> dict[str, Any]:
    size = cuts(parameters, shards)[0].stop
    addresses = [TaskAddress("train", 0, 0, index) for index in range(tasks)]
    parts = [Part(a, 0, n := np.full(size, a.index, np.float32), checksum(n)) for a in addresses]
    shard = GradientShard(Mean())
    for _ in range(2):  # in the first one memory is touched for the first time
        shard.begin("version")
        began = time.process_time()
        assert all(shard.receive("version", part) == "sound" for part in parts)
        received = time.process_time()
        assert shard.combine(0, [Counted(address, 1, None) for address in addresses])
        assert shard.result(1) is not None
        ended = time.process_time()
    return {
        "parameters": parameters,
        "shards": shards,
        "tasks": tasks,
        "bytes": 4 * size * tasks,
        "check_s": received - began,
        "combine_s": ended - received,
    }
