"""What one rank will hold in memory: the run's own estimator walks through one task on tensors without numbers.

Only shapes and lifetimes are followed (torch's meta device), so that the plan of a model that fits nowhere takes
seconds and no memory. What it does not see: buffers of kernels and of messages, and what an allocator keeps back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from metacl.config import RunConfig, Workers
from metacl.learners.adapted import Adapted, whole_model
from metacl.learners.adapting import ShardedModel
from metacl.learners.base import STEP_SIZE, Learner, LearnerConfig, Params, as_leaves
from metacl.learners.engine import Engine
from metacl.learners.gathered import SHARDED, gather_in_layers
from metacl.learners.live_memory import LiveMemory
from metacl.learners.partition import part_size
from metacl.learners.precision import linears_to_bfloat16
from metacl.learners.ranks import RankGroup
from metacl.tasks import TaskAddress
from metacl.tasks.episode import ArrayEpisode, Episode

PERSISTENT = 100_000
"""DeepSpeed's stage3_param_persistence_threshold, in numbers, where a config does not set it."""

META = torch.device("meta")


@dataclass(frozen=True)
class RankMemory:
    """Bytes on one rank.

    base : of the model, this rank's part and what is whole on every rank. offloaded : what of it lies in the
    machine's memory or on disk, not on the rank's device. gathered : the largest matrix, whole.
    trajectory : θ_0 … θ_K and the meta-parameters. activations : the most that else is alive at one time.
    """

    base: int
    offloaded: int
    gathered: int
    trajectory: int
    activations: int

    @property
    def on_device(self) -> int:
        """The most that the rank's device has to hold."""
        return self.base - self.offloaded + self.gathered + self.trajectory + self.activations


def weightless_learner(config: LearnerConfig, seed: int, workers: Workers) -> Learner:
    """A learner without weights, as the driver of a run needs it: for names, shapes and what is stored beside them."""
    with _Walk():
        return config.build(seed, META, _WeightlessEngine(workers))


def weightless(config: RunConfig) -> tuple[Learner, Params]:
    """The run's learner and meta-parameters without weights. Raises `ConfigError` if the estimator cannot take it."""
    with _Walk():
        learner = weightless_learner(config.learner, config.seed, config.workers)
        config.estimator.check_learner(learner)
        parameters = config.objective.meta_parameters(learner, config.inner, config.episodes.ways)
        return learner, as_leaves({name: tensor.to(META) for name, tensor in parameters.items()})


def rank_memory(config: RunConfig) -> RankMemory:
    """Walk through one task of the first outer step, the one with the longest texts. For transformers only."""
    learner, meta = weightless(config)
    source = config.data.open()
    addresses = [TaskAddress("train", config.seed, 0, index) for index in range(config.outer.tasks_per_step)]
    episodes = [source.episode(address, config.episodes) for address in addresses]
    longest = max(episodes, key=_characters)
    estimator = config.estimator.uncompiled()  # what is compiled takes no more than what is not
    with _Walk() as walk:
        estimator.estimate(config.objective.problem(learner, meta, learner.prepare(longest), config.inner))
    inner = sum(_bytes(tensor) for name, tensor in meta.items() if not name.startswith(STEP_SIZE))
    assert learner.module is not None
    base, offloaded, gathered = _base_sizes(learner.module, config.workers)
    in_the_walk = 0
    if config.learner.adapts_whole_model:  # the pretrained weights are held beside what they become
        base += sum(map(_bytes, learner.initial.values()))
        sizes = [shape.numel() for shape in learner.partition.shapes.values()]
        gathered = in_the_walk = max(sizes, default=0) * torch.float32.itemsize
    trajectory = inner * (config.inner.steps + 2)  # φ, then θ_0 … θ_K
    activations = max(0, walk.peak + inner - trajectory - in_the_walk)
    together = min(config.workers.tasks_per_forward, config.outer.tasks_per_step)
    return RankMemory(base, offloaded, gathered, together * trajectory, together * activations)


class _Walk(LiveMemory):
    """Live memory where there are no numbers: a loss that is looked at is 1, and a copy to another device stays."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See `LiveMemory`."""
        if function is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return 1.0
        if function is torch.ops.aten._to_copy.default and args[0].is_meta:
            kwargs = {**kwargs, "device": META}
        return super().__torch_dispatch__(function, types, args, kwargs)


class _OneOf(RankGroup):
    """Rank 0 of a group, alone: takes its share of the rows and sends nothing."""

    def spread(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Themselves."""
        return params

    def collect(self, rows: Tensor) -> Tensor:
        """Its own rows in everyone's place."""
        return rows.unsqueeze(1).expand(-1, self.size, *rows.shape[1:]).flatten(0, 1)

    def gather(self, part: Tensor) -> Tensor:
        """As large as all parts."""
        return part.new_empty(self.size * part.numel())

    def reduce_scatter(self, whole: Tensor) -> Tensor:
        """As large as one."""
        return whole.new_empty(whole.numel() // self.size)

    def total(self, value: Tensor) -> Tensor:
        """Itself."""
        return value


class _WeightlessEngine(Engine):
    """A model of the right shapes and no weights."""

    def __init__(self, workers: Workers) -> None:
        self.ranks = _OneOf(0, workers.ranks_per_group)
        self._workers = workers

    def load(self, kind: Any, folder: Path, attention: str, base_dtype: str, device: torch.device) -> PreTrainedModel:
        """Shapes only."""
        architecture = AutoConfig.from_pretrained(folder)
        with META:
            model = kind.from_config(architecture, attn_implementation=attention, dtype=torch.float32).eval()
        if base_dtype == "bfloat16":
            linears_to_bfloat16(model)
        return model

    def adapt_all(self, model: PreTrainedModel) -> Adapted:
        """Whole, or in parts at stage 3."""
        adapted = whole_model(model)
        if not _in_shards(self._workers):
            return adapted
        parameters = dict(model.named_parameters())
        names = adapted.module_names.values()
        adapting = {id(parameters[name]) for name in names}
        gathering = gather_in_layers(model, {id(p) for p in _sharded(model, self._workers) if id(p) in adapting})
        size = self.ranks.size
        parts = {name: torch.empty(part_size(parameters[name].numel(), size), device=META) for name in names}
        return ShardedModel(model, parts, {name: parameters[name].shape for name in names}, self.ranks, gathering)


def _in_shards(workers: Workers) -> bool:
    return workers.executor == "ray" and workers.zero_stage == 3


def _sharded(model: nn.Module, workers: Workers) -> list[nn.Parameter]:
    """What is gathered for each use; DeepSpeed leaves small matrices whole."""
    small = workers.deepspeed.get("zero_optimization", {}).get("stage3_param_persistence_threshold", PERSISTENT)
    matrices = {id(module.weight) for module in model.modules() if isinstance(module, SHARDED)}
    return [p for p in model.parameters() if id(p) in matrices and p.numel() > small]


def _base_sizes(model: nn.Module, workers: Workers) -> tuple[int, int, int]:
    """Bytes of the frozen base on one rank, of these offloaded, and of the largest matrix that is gathered."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    if not _in_shards(workers):
        return sum(map(_bytes, frozen)), 0, 0
    sharded = [p for p in _sharded(model, workers) if not p.requires_grad]
    parts = sum(-(-_bytes(parameter) // workers.ranks_per_group) for parameter in sharded)
    # Beside what is whole on every rank DeepSpeed keeps this rank's part of it.
    gathered = {id(p) for p in sharded}
    whole = [_bytes(p) for p in frozen if id(p) not in gathered]
    kept = sum(size + -(-size // workers.ranks_per_group) for size in whole)
    return parts + kept, parts if workers.offload != "none" else 0, max(map(_bytes, sharded), default=0)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _characters(episode: Episode | ArrayEpisode) -> int:
    return sum(map(len, (*episode.support_texts, *episode.query_texts))) if isinstance(episode, Episode) else 0
