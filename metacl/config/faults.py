"""The section ``faults``: what is to go wrong, as a drill."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat

from metacl.registry import Component

NEEDS_GROUPS = ("kill_rank", "kill_node", "kill_shard", "hang")
"""Faults that would end or stop this process, were it the worker."""


class Fault(Component):
    """Something that goes wrong, once: a drill for your own cluster, by the switch that metacl's tests use.

    kind : "kill_rank", "kill_node" (the Ray node of the task's group), "kill_shard" (the first of those that combine
    gradients, as the task's is sent), "hang", "slow", "non_finite" and "corrupt_reply" strike when task `index` of
    outer step `step` (from 0, as in its address) is computed first, and "sigterm" stops the driver when it hands that
    task out. "corrupt_checkpoint" and "disk_full" strike the first checkpoint that is written after that step.
    seconds : how long "slow" takes. rank : the one of the group that a "kill_rank", "hang" or "slow" strikes; null for
    all that it has.
    """

    kind: Literal[
        "kill_rank",
        "kill_node",
        "kill_shard",
        "hang",
        "slow",
        "non_finite",
        "corrupt_reply",
        "corrupt_checkpoint",
        "disk_full",
        "sigterm",
    ]
    step: NonNegativeInt
    index: NonNegativeInt = 0
    seconds: PositiveFloat = 5.0
    rank: NonNegativeInt | None = None
