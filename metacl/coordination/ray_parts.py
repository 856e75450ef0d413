"""Parts of the meta-parameters as Ray actors, one for each rank of a group, and the ways from and to the ranks.

Rank r of every group takes its parameters from part r and sends its gradient there; the driver hands on references and
sees a whole parameter only when one is written down. A part that is lost takes its state with it: the run stops, and
continues from the newest checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from torch import Tensor

from metacl.config import config_from_dict
from metacl.coordination.flat import Flat
from metacl.coordination.gathering import Gathering, GradientsLost
from metacl.coordination.interrupt import held
from metacl.coordination.meta_state import MetaPart, PartLayout, norm_of
from metacl.coordination.ray_cluster import shard_nodes
from metacl.coordination.ray_errors import error_of_ours
from metacl.coordination.ray_shards import LOST, Shards
from metacl.coordination.shards import Counted, Part, Verdict
from metacl.coordination.worker import DAMAGED, PartedGradient, PartedMeta, ReplyDamaged, TaskResult
from metacl.errors import ResourceError
from metacl.learners.base import Params
from metacl.learners.ranks import RankGroup
from metacl.tasks import TaskAddress

WORST: tuple[Verdict | None, ...] = ("sound", "not finite", "damaged", None)
"""Verdicts in order; None: a part could not be asked."""


class PartActor:
    """A `MetaPart` in a process of its own."""

    _version = ""

    def __init__(self, tree: dict[str, Any], first: bool) -> None:
        config = config_from_dict(tree)
        torch.set_num_threads(config.workers.threads)
        self._part = MetaPart(config.outer, first)

    def take_initial(self, layout: PartLayout, flat: Flat) -> None:
        """See `MetaPart.start`, and its methods below."""
        self._part.start(layout, flat)

    def restore(self, layout: PartLayout, meta: Params, outer_state: dict[str, Tensor]) -> None:
        """From a checkpoint."""
        self._part.restore(layout, meta, outer_state)

    def broadcast(self) -> tuple[str, Any]:
        """The version of this part, and a reference to it."""
        parameters = self._part.parameters()
        self._version = parameters.version
        return parameters.version, ray.put(parameters)

    def begin(self) -> None:
        """A new step, or the same one again."""
        self._part.gradients.begin(self._version)

    def receive(self, version: str, address: TaskAddress, numbers: Flat, checksum: str) -> Verdict:
        """A rank's gradient."""
        return self._part.gradients.receive(version, Part(address, 0, numbers, checksum))

    def combine(self, portion: int, counted: Sequence[Counted]) -> bool:
        """Whether all gradients were here."""
        return self._part.gradients.combine(portion, counted)

    def square_sum(self, portions: int) -> float | None:
        """None if not all portions are here."""
        return self._part.square_sum(portions)

    def move(self, step: int, norm: float) -> bool:
        """Whether all is finite."""
        return self._part.move(step, norm)

    def tensors(self) -> tuple[Params, dict[str, Tensor]]:
        """For a checkpoint."""
        return self._part.tensors()

    def numbers(self, name: str) -> Tensor:
        """This part of one meta-parameter."""
        return self._part.numbers(name)


class RayParts(Shards):
    """The driver's side (see `metacl.coordination.meta_state.Parts`)."""

    def start(self) -> None:
        """One actor a rank, on the cluster's nodes in turn. Does not wait for them."""
        nodes, tree = shard_nodes(), self._config.to_dict()
        for number in range(self._config.workers.ranks_per_group):
            options = ray.remote(PartActor).options(
                num_cpus=0,
                runtime_env={"env_vars": {"CUDA_VISIBLE_DEVICES": ""}},
                scheduling_strategy=NodeAffinitySchedulingStrategy(nodes[number % len(nodes)], soft=True),
            )
            self.actors.append(options.remote(tree, number == 0))

    def take_initial(self, layout: PartLayout, initial: Sequence[Any]) -> None:
        """Begin at what a group's ranks start with: a reference each."""
        with held():
            asked = [
                actor.take_initial.remote(layout, flat) for actor, flat in zip(self.actors, initial, strict=True)
            ]
        self.answers(asked)

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """What every part answers."""
        return self._ask(method, *arguments)

    def ask_one(self, part: int, method: str, *arguments: Any) -> Any:
        """What one answers."""
        with held():
            asked = getattr(self.actors[part], method).remote(*arguments)
        return self.answers([asked])[0]

    def answers(self, references: Sequence[Any]) -> list[Any]:
        """See `Shards.answers`. Raises `ResourceError` if a part is lost, too; else what its code raised."""
        try:
            return super().answers(references)
        except RayTaskError as error:
            raise error_of_ours(error, "a part of the meta-parameters", self._config.less_memory) from None
        except RayError as error:
            raise ResourceError(
                f"a process that holds a part of the meta-parameters is lost ({type(error).__name__}). The same "
                f"command continues from the newest checkpoint."
            ) from None


class InParts(Gathering):
    """A step whose gradients are with the parts, and stay there."""

    def __init__(self, parts: RayParts) -> None:
        self._parts = parts
        self._portions = 0
        parts.ask("begin")

    def combine(self, results: Mapping[TaskAddress, TaskResult]) -> None:
        """Every part its own, all at once."""
        counted = [Counted(a, r.examples, r.norm) for a, r in sorted(results.items())]
        if not self._parts.combine(self._portions, counted):
            raise GradientsLost(LOST)
        self._portions += 1

    def result(self) -> PartedGradient:
        """Its norm."""
        return PartedGradient(norm_of(self._parts.ask("square_sum", self._portions)))


@dataclass(frozen=True)
class PartSender:
    """A rank's way to its part, for tasks at parameters of one version. All ranks of the group send at once."""

    part: Any
    version: str
    ranks: RankGroup

    def __call__(self, address: TaskAddress, result: TaskResult) -> TaskResult:
        """Waits until all parts have looked at theirs; what is wrong with one is said by all ranks alike."""
        verdict: Verdict | None = None
        try:
            (checksum,) = result.checksums
            verdict = ray.get(self.part.receive.remote(self.version, address, result.whole, checksum))
        except RayError:
            pass  # said below, by all ranks
        found = torch.zeros(len(WORST))
        found[WORST.index(verdict)] = 1
        worst = WORST[int(self.ranks.total(found).nonzero().max())]
        if worst is None:
            raise ReplyDamaged("a part of the meta-parameters could not be given its gradient")
        if worst == "damaged":
            raise ReplyDamaged(DAMAGED)
        if worst == "not finite":
            raise result.not_finite()
        return replace(result, gradient=None)


def meta_for_ranks(parameters: Any, ranks: int) -> list[Any]:
    """What each rank of a group is given of the meta-parameters that an executor has sent."""
    return list(parameters.references) if isinstance(parameters, PartedMeta) else [parameters] * ranks
