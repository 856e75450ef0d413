"""A worker group: its ranks as Ray actors, and the handle by which the driver brings it up, uses it and ends it.

A rank is a `Worker` whose model is held by a DeepSpeed engine. The handle never waits: it says what it is waiting for,
so that one group can start while others compute.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from metacl.config import RunConfig, config_from_dict
from metacl.coordination.flat import checksum
from metacl.coordination.worker import Parameters, Reply, ReplyDamaged, Work, Worker
from metacl.tasks import TaskAddress


class GroupRank:
    """Computes tasks one at a time. Made in two steps, so that the ranks of a group can learn where the first is."""

    _version = ""

    def place(self) -> tuple[str, int, str]:
        """This rank's address, a free port on its machine for the group's process group, and its Ray node."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            node = ray.get_runtime_context().get_node_id()
            return ray.util.get_node_ip_address(), probe.getsockname()[1], node

    def build(self, config: dict[str, Any], master_address: str, master_port: int) -> str:
        """Load everything; one line about what was loaded."""
        from metacl.learners.sharding import RankEnvironment, ZeroEngine

        resolved = config_from_dict(config)
        engine = ZeroEngine(
            resolved.workers.zero_stage,
            RankEnvironment(0, 1, master_address, master_port),
            gpu=resolved.workers.gpus_per_group > 0,
        )
        self._worker = Worker(resolved, engine)
        return f"group ready (pid {os.getpid()}, ZeRO stage {resolved.workers.zero_stage}): {resolved.learner.source()}"

    def run(self, work: Work[Any], address: TaskAddress, parameters: Parameters) -> Reply[Any]:
        """Compute one piece of work. Raises `ReplyDamaged` if the parameters are not the ones that were sent."""
        if parameters.version != self._version:
            if checksum(parameters.flat) != parameters.version:
                raise ReplyDamaged("the parameters were damaged on their way (their checksum differs)")
            self._version = parameters.version
        return Reply(parameters.version, work(self._worker, address, parameters.flat))


class WorkerGroup:
    """One group as the driver sees it. Made, it waits for its place; it is `ready` after three `advance`.

    Attributes
    ----------
    pending : list of references
        What its start waits for; when all are there, `advance` goes on. Empty once it is ready.
    doing : str
        What that is, for people.
    node : str
        The Ray node it runs on, once it is placed.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._ranks: list[Any] = []
        bundle = {"CPU": float(config.workers.threads)}
        if config.workers.gpus_per_group:
            bundle["GPU"] = float(config.workers.gpus_per_group)
        self._placement = placement_group([bundle], strategy="STRICT_PACK")
        self.node = ""
        self.doing = "waiting for a place"
        self.pending: list[Any] = [self._placement.ready()]

    def advance(self) -> str | None:
        """Begin the next part of the start. The line that the group says when it is ready, else None.

        Raises whatever the part before ended with: Ray's errors, or those of metacl.
        """
        found = ray.get(self.pending)
        if not self._ranks:
            self._ranks = [self._start_rank()]
            self.doing, self.pending = "starting", [rank.place.remote() for rank in self._ranks]
        elif not self.node:
            address, port, self.node = found[0]
            tree = self._config.to_dict()
            self.doing = "loading model and data, starting DeepSpeed"
            self.pending = [rank.build.remote(tree, address, port) for rank in self._ranks]
        else:
            self.doing, self.pending = "ready", []
            return str(found[0])
        return None

    def submit(self, work: Work[Any], address: TaskAddress, parameters: Any) -> Any:
        """A reference to the `Reply`. `parameters` is a reference to `Parameters`, which ranks read without a copy."""
        return self._ranks[0].run.remote(work, address, parameters)

    def kill(self) -> None:
        """End its processes at once and give its place back. Fine on a group that is dead already."""
        for rank in self._ranks:
            ray.kill(rank)
        remove_placement_group(self._placement)
        self._ranks, self.pending = [], []

    def _start_rank(self) -> Any:
        workers = self._config.workers
        # Ray does not hide GPUs from an actor that asked for none; torch and DeepSpeed would then use them.
        hidden = {} if workers.gpus_per_group else {"env_vars": {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}}
        rank = ray.remote(GroupRank).options(
            num_cpus=workers.threads,
            num_gpus=workers.gpus_per_group,
            runtime_env=hidden,
            scheduling_strategy=PlacementGroupSchedulingStrategy(self._placement),
        )
        return rank.remote()
