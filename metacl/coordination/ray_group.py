"""A worker group: one or more ranks, each a Ray actor, that hold one model and compute a task together.

The ranks lie in one placement group and form one process group. Work goes to all of them; all compute the same
result, and that of rank 0 is the group's. The loss of a rank, or an error of one alone, is the loss of the group.
The driver's handle never waits: it says what it is waiting for, so that one group can start while others compute.
"""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from metacl.config import Workers
from metacl.coordination.flat import Flat, checksum
from metacl.coordination.ray_parts import PartSender, meta_for_ranks
from metacl.coordination.ray_shards import ShardSender
from metacl.coordination.worker import Job, Parameters, Reply, ReplyDamaged, Work, WorkerKind
from metacl.errors import MetaclError
from metacl.learners.ranks import RankLost
from metacl.metagradients.compiled import compiler_here
from metacl.tasks import TaskAddress

NOTHING_KEPT = {
    "MALLOC_MMAP_THRESHOLD_": "262144",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0",
}
"""glibc would keep the room of gathered matrices, in pieces; above this size it goes back at once. What it cuts off
below, to align a tensor, would stay in its caches of small pieces and hold neighbours apart."""


class WorkerGroup:
    """One group as the driver sees it. Made, it waits for its place; it is `ready` after three `advance`.

    Parameters
    ----------
    config : Job
        Of the run. The group's place is asked for at once.
    kind : WorkerKind
        What each rank makes of it.
    number : int
        Which of the run's groups this is, from 0: spread over the nodes in turn.
    shards : sequence of handles
        Where its gradients go; empty: with the replies.

    Attributes
    ----------
    pending : list of references
        What its start waits for; when all are there, `advance` goes on. Empty once it is ready.
    doing : str
        What that is, for people.
    node : str
        The Ray node its rank 0 runs on, once it is placed.
    compiles : bool
        Whether its machine has a compiler, once it is ready.
    """

    def __init__(self, config: Job, kind: WorkerKind, number: int, shards: Sequence[Any]) -> None:
        self._config, self._kind, self._shards = config, kind, shards
        self._ranks: list[Any] = []
        workers = config.workers
        bundle = {"CPU": float(workers.threads)}
        if workers.gpus_per_group:
            bundle["GPU"] = 1.0
        self._placement = placement_group(
            [bundle] * workers.ranks_per_group,
            strategy=workers.ranks_placement,
            _soft_target_node_id=_node_in_turn(number) if _steered(workers) else None,
        )
        self.node = ""
        self.compiles = False
        self.doing = "waiting for a place"
        self.pending: list[Any] = [self._placement.ready()]

    def advance(self) -> str | None:
        """Begin the next part of the start. The line that the group says when it is ready, else None.

        Raises whatever the part before ended with: Ray's errors, or those of metacl.
        """
        found = ray.get(self.pending)
        if not self._ranks:
            self._ranks = [self._start_rank(rank) for rank in range(self._config.workers.ranks_per_group)]
            self.doing, self.pending = "starting", [rank.place.remote() for rank in self._ranks]
        elif not self.node:
            first, tree = found[0], self._config.to_dict()
            self.node = first[2]
            self.doing = "loading model and data, starting DeepSpeed"
            self.pending = [
                actor.build.remote(self._kind, tree, rank, first, self._shards)
                for rank, actor in enumerate(self._ranks)
            ]
        else:
            self.doing, self.pending = "ready", []
            line, self.compiles = found[0]
            return str(line)
        return None

    def submit(self, work: Work[Any], address: TaskAddress, parameters: Any) -> Any:
        """A reference to the `Reply`, in order of submission.

        parameters : a reference to `Parameters`, or a `PartedMeta` with one for each rank.
        """
        shared = meta_for_ranks(parameters, len(self._ranks))
        first, *_ = [actor.run.remote(work, address, own) for actor, own in zip(self._ranks, shared, strict=True)]
        return first

    def initial(self) -> list[Any]:
        """References to the meta-parameters that each rank starts with, flat."""
        return [rank.initial.remote() for rank in self._ranks]

    def cancel(self, reference: Any) -> None:
        """Drop work that has not begun. Several ranks do it all the same: one may have begun where another has not."""
        if len(self._ranks) == 1:
            ray.cancel(reference, force=False)

    def kill(self) -> None:
        """End its processes at once and give its place back. Fine on a group that is dead already."""
        for rank in self._ranks:
            ray.kill(rank)
        remove_placement_group(self._placement)
        self._ranks, self.pending = [], []

    def _start_rank(self, rank: int) -> Any:
        workers = self._config.workers
        options = ray.remote(GroupRank).options(
            num_cpus=workers.threads,
            num_gpus=1 if workers.gpus_per_group else 0,
            runtime_env={"env_vars": _environment(workers)},
            scheduling_strategy=PlacementGroupSchedulingStrategy(self._placement, placement_group_bundle_index=rank),
        )
        return options.remote()


def _environment(workers: Workers) -> dict[str, str]:
    """What a rank's process starts with."""
    variables: dict[str, str] = {}
    if not workers.gpus_per_group:
        # Ray does not hide GPUs from an actor that asked for none; torch and DeepSpeed would then use them.
        variables.update(CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu")
    if workers.zero_stage == 3:
        variables.update(NOTHING_KEPT)
    return variables


def _steered(workers: Workers) -> bool:
    """Ray spreads bundles, not placement groups; it takes a hint where a whole group goes if the group is one place."""
    return workers.groups_placement == "SPREAD" and workers.ranks_placement == "STRICT_PACK"


def _node_in_turn(number: int) -> str | None:
    nodes = sorted(node["NodeID"] for node in ray.nodes() if node["Alive"])
    return nodes[number % len(nodes)] if nodes else None


class GroupRank:
    """One rank. Made in two steps, so that the ranks of a group can learn where the first is."""

    _version = ""
    _rank, _size, _out_of_step = 0, 1, False
    _shards: Sequence[Any] = ()

    def place(self) -> tuple[str, int, str]:
        """This rank's address, a free port on its machine for the group's process group, and its Ray node."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        return ray.util.get_node_ip_address(), port, ray.get_runtime_context().get_node_id()

    def build(
        self, kind: WorkerKind, config: dict[str, Any], rank: int, first: tuple[str, int, str], shards: Sequence[Any]
    ) -> tuple[str, bool]:
        """Join the group whose rank 0 is at `first` and load everything.

        Returns one line about what was loaded, and whether there is a compiler here.
        """
        from metacl.learners.sharding import RankEnvironment, ZeroOptions, make_engine

        resolved = kind.read(config)
        workers = resolved.workers
        self._rank, self._size, self._out_of_step = rank, workers.ranks_per_group, False
        self._shards = shards
        self.engine = make_engine(
            ZeroOptions(workers.zero_stage, workers.offload, workers.nvme_path, workers.deepspeed),
            RankEnvironment(rank, workers.ranks_per_group, first[0], first[1]),
            gpu=workers.gpus_per_group > 0,
        )
        self.worker = kind(resolved, self.engine)
        where = f"rank {rank} of {self._size}, pid {os.getpid()}, ZeRO stage {workers.zero_stage}"
        return f"group ready ({where}): {resolved.learner.source()}", compiler_here()

    def initial(self) -> Flat:
        """The meta-parameters that this rank starts with."""
        flat: Flat = self.worker.layout.flatten(self.worker.initial)
        return flat

    def run(self, work: Work[Any], address: TaskAddress, parameters: Parameters) -> Reply[Any] | None:
        """Compute one piece of work. The reply of rank 0 is the group's; the others keep theirs to themselves.

        All ranks compute the same numbers, so an expected error is one on all of them. Any other may be this rank's
        alone, and the others then wait for it: unless it is rank 0, which can say what happened, the rank ends, which
        ends the waiting; and a rank that has lost another ends, too. Rank 0's end is the group's.

        Raises `ReplyDamaged` if the parameters are not the ones that were sent.
        """
        if self._out_of_step:
            _end(f"rank {self._rank}: failed before, while the others went on")
        if parameters.version != self._version:
            if checksum(parameters.flat) != parameters.version:
                damaged = "the parameters were damaged on their way (their checksum differs)"
                if self._size > 1:  # on this rank alone: the others compute, and wait for it
                    _end(f"rank {self._rank}: {damaged}")
                raise ReplyDamaged(damaged)
            self._version = parameters.version
        try:
            result = work(self.worker, address, parameters.flat)
            if self._shards and self.worker.partition.shapes:
                sender = PartSender(self._shards[self._rank], parameters.version, self.engine.ranks)
                result = work.sent(result, address, sender)
        except MetaclError:
            raise
        except RankLost as lost:
            _end(f"rank {self._rank}: {lost}")
        except Exception:
            if self._rank > 0:
                _end(f"rank {self._rank} failed:\n{traceback.format_exc()}")
            self._out_of_step = self._size > 1
            raise
        if self._rank > 0:
            return None
        if self._shards and not self.worker.partition.shapes:
            result = work.sent(result, address, ShardSender(self._shards, parameters.version))
        return Reply(parameters.version, result)


def _end(reason: str) -> NoReturn:
    """Leave at once; Ray keeps the reason in the worker's log."""
    print(reason, flush=True)
    os._exit(1)
