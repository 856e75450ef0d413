"""One rank of a worker group, as a Ray actor: a `Worker` whose model is held by a DeepSpeed engine."""

from __future__ import annotations

import os
import socket
from typing import Any

import ray

from metacl.config import config_from_dict
from metacl.coordination.flat import Flat
from metacl.coordination.worker import Work, Worker
from metacl.tasks import TaskAddress


class GroupRank:
    """Computes tasks one at a time. Made in two steps, so that the ranks of a group can learn where the first is."""

    def place(self) -> tuple[str, int]:
        """This rank's address and a free port on its machine, for the group's process group."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

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

    def run(self, work: Work[Any], address: TaskAddress, meta: Flat) -> Any:
        """Compute one piece of work."""
        return work(self._worker, address, meta)
