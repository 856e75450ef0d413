"""Shards as Ray actors: each combines its range of the gradients, beside the worker groups, on their nodes.

A worker cuts its gradient, gives every shard its part and waits until all have checked theirs; only then it answers the
coordinator, which so never sees a gradient before it is combined: a step costs it a few calls a shard, and a short
answer a task. A shard that is lost is started again by Ray, and what it held is computed again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from metacl.aggregation import AGGREGATORS
from metacl.config import RunConfig
from metacl.coordination.flat import Flat, cuts, examine
from metacl.coordination.gathering import Gathering, GradientsLost
from metacl.coordination.interrupt import held
from metacl.coordination.ray_cluster import shard_nodes
from metacl.coordination.shards import Combined, Counted, GradientShard, Part, Verdict
from metacl.coordination.worker import DAMAGED, ReplyDamaged, TaskResult
from metacl.errors import ResourceError
from metacl.plugins import import_plugins
from metacl.tasks import TaskAddress

POLL_S = 0.5
"""How long a stop signal may have to wait."""

LOST = "a shard was lost with the gradients it held, or what it combined was damaged"


class ShardActor:
    """A `GradientShard` in a process of its own."""

    def __init__(self, plugins: Sequence[str], aggregator: dict[str, Any]) -> None:
        import_plugins(plugins)
        self._shard = GradientShard(AGGREGATORS.build(aggregator))

    def begin(self, version: str) -> None:
        """See `GradientShard`, here and below."""
        self._shard.begin(version)

    def receive(self, version: str, address: TaskAddress, begin: int, numbers: Flat, checksum: str) -> Verdict:
        """`numbers` stands alone among the arguments: so Ray hands it over where it lies, without a copy."""
        return self._shard.receive(version, Part(address, begin, numbers, checksum))

    def combine(self, portion: int, counted: Sequence[Counted]) -> bool:
        """Whether all parts were here."""
        return self._shard.combine(portion, counted)

    def result(self, portions: int) -> Combined | None:
        """None if not all portions are here."""
        return self._shard.result(portions)

    def end(self) -> None:
        """A drill: as if it were killed."""
        os._exit(1)


class Shards:
    """The driver's side.

    Attributes
    ----------
    actors : list
        Handles, in the order of the ranges, good for actors that Ray starts again, too; empty where the coordinator
        combines.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self.actors: list[Any] = []

    def start(self) -> None:
        """One actor a range, on the cluster's nodes in turn, if there are to be several. Does not wait for them."""
        count = self._config.workers.gradient_shards
        if count == 1:
            return
        nodes = shard_nodes()
        arguments = self._config.plugins, self._config.outer.aggregator.to_dict()
        for number in range(count):
            options = ray.remote(ShardActor).options(
                num_cpus=0,
                max_restarts=-1,
                max_task_retries=-1,
                runtime_env={"env_vars": {"CUDA_VISIBLE_DEVICES": ""}},
                scheduling_strategy=NodeAffinitySchedulingStrategy(nodes[number % len(nodes)], soft=True),
            )
            self.actors.append(options.remote(*arguments))

    def close(self) -> None:
        """End them."""
        for actor in self.actors:
            ray.kill(actor)
        self.actors = []

    def begin(self, version: str) -> None:
        """See `GradientShard`: all at once, here and below."""
        self._ask("begin", version)

    def combine(self, portion: int, counted: Sequence[Counted]) -> bool:
        """Whether all parts were there."""
        with held():
            shared = ray.put(counted)
        return all(self._ask("combine", portion, shared))

    def result(self, portions: int) -> list[Combined | None]:
        """In the order of the ranges."""
        return self._ask("result", portions)

    def _ask(self, method: str, *arguments: Any) -> list[Any]:
        """Every shard's answer. Raises `ResourceError` if one has none within ``workers.start_timeout_s``."""
        with held():
            asked = [getattr(actor, method).remote(*arguments) for actor in self.actors]
        return self.answers(asked)

    def answers(self, references: Sequence[Any]) -> list[Any]:
        """What the references hold, in time. Raises as `_ask`."""
        pending = list(references)
        limit = self._config.workers.start_timeout_s
        deadline = time.monotonic() + limit
        while pending:
            with held():
                _, pending = ray.wait(pending, num_returns=len(pending), timeout=POLL_S)
            if pending and time.monotonic() > deadline:
                raise ResourceError(
                    f"{len(pending)} of {len(references)} processes that hold parts of the gradients do not answer "
                    f"within workers.start_timeout_s = {limit:.0f} s. The same command continues from the last "
                    f"finished step."
                )
        with held():
            return list(ray.get(list(references)))


class Sharded(Gathering):
    """A step whose gradients are with the shards. `whole` (P,) is where the combined one will be."""

    def __init__(self, shards: Shards, version: str, whole: Flat) -> None:
        self._shards, self._whole = shards, whole
        self._portions = 0
        shards.begin(version)

    def combine(self, results: Mapping[TaskAddress, TaskResult]) -> None:
        """Every shard its range, all at once."""
        counted = [Counted(a, r.examples, r.norm) for a, r in sorted(results.items())]
        if not self._shards.combine(self._portions, counted):
            raise GradientsLost(LOST)
        self._portions += 1

    def result(self) -> Flat:
        """The ranges put together, in `whole`."""
        for part in self._shards.result(self._portions):
            if part is None or not examine(part.numbers, part.checksum)[0]:
                raise GradientsLost(LOST)
            self._whole[part.begin : part.begin + part.numbers.size] = part.numbers
        return self._whole


@dataclass(frozen=True)
class ShardSender:
    """A worker's way to the shards, for tasks at parameters of one version."""

    actors: Sequence[Any]
    version: str

    def __call__(self, address: TaskAddress, result: TaskResult) -> TaskResult:
        """Each part to its shard; waits until all have looked at theirs, or a lost one is there again."""
        gradient = result.whole
        ranges = cuts(gradient.size, len(self.actors))
        sent = [
            actor.receive.remote(self.version, address, where.start, gradient[where], checksum)
            for actor, where, checksum in zip(self.actors, ranges, result.checksums, strict=True)
        ]
        try:
            verdicts: list[Verdict] = ray.get(sent)
        except RayError as error:
            raise ReplyDamaged(f"a shard could not be given its part ({type(error).__name__})") from None
        if "damaged" in verdicts:
            raise ReplyDamaged(DAMAGED)
        if "not finite" in verdicts:
            raise result.not_finite()
        return replace(result, gradient=None)

    def end_one(self) -> None:
        """Ray must not try this call again on the new one."""
        self.actors[0].end.options(max_task_retries=0).remote()
