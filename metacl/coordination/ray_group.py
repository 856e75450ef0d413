"""A worker group: one or more ranks, each a Ray actor, that hold one model and compute a task together.

The ranks lie in one placement group and form one process group. Work goes to all of them; all compute the same
result, and that of rank 0 is the group's. The loss of a rank, or an error of one alone, is the loss of the group.
"""

from __future__ import annotations

import os
import socket
import traceback
from typing import Any, NoReturn

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from metacl.config import RunConfig, Workers, config_from_dict
from metacl.coordination.flat import Flat
from metacl.coordination.worker import Work, Worker
from metacl.errors import MetaclError
from metacl.learners.ranks import RankLost
from metacl.tasks import TaskAddress


class WorkerGroup:
    """The driver's handle on one group. Nothing here waits; whoever holds it waits for the references.

    Parameters
    ----------
    config : RunConfig
        Of the run. The group's place is asked for at once.
    index : int
        Which of the run's groups this is, from 0: spread over the nodes in turn.
    """

    def __init__(self, config: RunConfig, index: int) -> None:
        workers = self._workers = config.workers
        self._config = config
        bundle = {"CPU": float(workers.threads)}
        if workers.gpus_per_group:
            bundle["GPU"] = 1.0
        self._placement = placement_group(
            [bundle] * workers.ranks_per_group,
            strategy=workers.ranks_placement,
            _soft_target_node_id=_node_in_turn(index) if _steered(workers) else None,
        )
        self._ranks: list[Any] = []
        self._place: Any = None

    def reserved(self) -> Any:
        """A reference that is there once the group has its place."""
        return self._placement.ready()

    def start(self) -> list[Any]:
        """Start the ranks and load the model in each. A reference a rank: one line about what was loaded."""
        workers = self._workers
        placed = PlacementGroupSchedulingStrategy
        self._ranks = [
            ray.remote(GroupRank)
            .options(
                num_cpus=workers.threads,
                num_gpus=1 if workers.gpus_per_group else 0,
                runtime_env={"env_vars": _environment(workers)},
                scheduling_strategy=placed(self._placement, placement_group_bundle_index=rank),
            )
            .remote()
            for rank in range(workers.ranks_per_group)
        ]
        self._place = self._ranks[0].place.remote()
        tree = self._config.to_dict()
        return [actor.build.remote(tree, rank, self._place) for rank, actor in enumerate(self._ranks)]

    def submit(self, work: Work[Any], address: TaskAddress, meta: Any) -> Any:
        """A reference to the result of one piece of work; `meta` may be a reference itself. In order of submission."""
        first, *_ = [actor.run.remote(work, address, meta) for actor in self._ranks]
        return first

    def cancel(self, reference: Any) -> None:
        """Drop work that has not begun. Several ranks do it all the same: one may have begun where another has not."""
        if len(self._ranks) == 1:
            ray.cancel(reference, force=False)

    def node_id(self) -> str:
        """The node that rank 0 is on. Waits for rank 0 to be there."""
        return ray.get(self._place)[2]

    def kill(self) -> None:
        """End all ranks and give the place back."""
        for actor in self._ranks:
            ray.kill(actor)
        remove_placement_group(self._placement)


def _environment(workers: Workers) -> dict[str, str]:
    """What a rank's process starts with."""
    variables: dict[str, str] = {}
    if not workers.gpus_per_group:
        # Ray does not hide GPUs from an actor that asked for none; torch and DeepSpeed would then use them.
        variables.update(CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu")
    if workers.zero_stage == 3:
        # glibc would keep the room of gathered matrices, in pieces; above this size it goes back at once.
        variables["MALLOC_MMAP_THRESHOLD_"] = "262144"
    return variables


def _steered(workers: Workers) -> bool:
    """Ray spreads bundles, not placement groups; it takes a hint where a whole group goes if the group is one place."""
    return workers.groups_placement == "SPREAD" and workers.ranks_placement == "STRICT_PACK"


def _node_in_turn(index: int) -> str | None:
    nodes = sorted(node["NodeID"] for node in ray.nodes() if node["Alive"])
    return nodes[index % len(nodes)] if nodes else None


class GroupRank:
    """One rank. Made in two steps, so that the ranks of a group can learn where the first is."""

    def place(self) -> tuple[str, int, str]:
        """This rank's address, a free port on its machine for the process group, and the id of its node."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        return ray.util.get_node_ip_address(), port, ray.get_runtime_context().get_node_id()

    def build(self, config: dict[str, Any], rank: int, first: tuple[str, int, str]) -> str:
        """Join the group whose rank 0 is at `first` and load everything; one line about what was loaded."""
        from metacl.learners.sharding import RankEnvironment, ZeroOptions, make_engine

        resolved = config_from_dict(config)
        workers = resolved.workers
        self._rank, self._size, self._out_of_step = rank, workers.ranks_per_group, False
        self.engine = make_engine(
            ZeroOptions(workers.zero_stage, workers.offload, workers.nvme_path, workers.deepspeed),
            RankEnvironment(rank, workers.ranks_per_group, first[0], first[1]),
            gpu=workers.gpus_per_group > 0,
        )
        self.worker = Worker(resolved, self.engine)
        where = f"rank {rank} of {self._size}, pid {os.getpid()}, ZeRO stage {workers.zero_stage}"
        return f"group ready ({where}): {resolved.learner.source()}"

    def run(self, work: Work[Any], address: TaskAddress, meta: Flat) -> Any:
        """Compute one piece of work. The result of rank 0 is the group's; the others keep theirs to themselves.

        All ranks compute the same numbers, so an expected error is one on all of them. Any other may be this rank's
        alone, and the others then wait for it: unless it is rank 0, which can say what happened, the rank ends, which
        ends the waiting; and a rank that has lost another ends, too. Rank 0's end is the group's.
        """
        if self._out_of_step:
            _end(f"rank {self._rank}: failed before, while the others went on")
        try:
            result = work(self.worker, address, meta)
        except MetaclError:
            raise
        except RankLost as lost:
            _end(f"rank {self._rank}: {lost}")
        except Exception:
            if self._rank > 0:
                _end(f"rank {self._rank} failed:\n{traceback.format_exc()}")
            self._out_of_step = self._size > 1
            raise
        return result if self._rank == 0 else None


def _end(reason: str) -> NoReturn:
    """Leave at once; Ray keeps the reason in the worker's log."""
    print(reason, flush=True)
    os._exit(1)
