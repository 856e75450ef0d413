"""A learner: a model as a pure function of its adaptable parameters.

Nothing here updates a parameter. The inner loop hands in a dict of tensors and gets features, outputs or a
loss that are differentiable in them; the frozen base never changes and never enters the dict.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from metacl.errors import ConfigError
from metacl.learners.partition import Partition
from metacl.learners.ranks import RankGroup
from metacl.learners.samples import Samples, choose
from metacl.registry import Component, Registry
from metacl.tasks.episode import ArrayEpisode, Episode, TaskAddress

if TYPE_CHECKING:
    from metacl.learners.engine import Engine

Params = dict[str, Tensor]
"""Named tensors. Names are dotted and start with their family (`ModuleLearner`'s own with ``module.``)."""

ADAPTER, MODEL, HEAD, STEP_SIZE = "adapter.", "model.", "head.", "step_size."
"""The families: PEFT's tensors or all of a transformers model's, the classifier on top, learned step sizes of the inner
loop."""


@dataclass
class Group:
    """G examples that go through the model together on this rank, each in a row of its own or several in one of R.

    inputs : what the model's forward takes (token ids, attention mask), each (R, L) or (R, …).
    prefix : activations (R, L, D) at the first adapted layer, or None where nothing lies below it.
    pool : (G, R·L), the weight of every token in an example's feature vector; None where a row is an example.
    """

    inputs: dict[str, Tensor]
    prefix: Tensor | None
    pool: Tensor | None = None


@dataclass
class Batch:
    """B examples ready for the model.

    groups : the examples, by length.
    order : (B,) where in the rows of all groups, as `RankGroup.collect` gives them, each example stands.
    targets : (B,) class positions (or what the loss compares with), or None when the labels are not known.
    """

    groups: list[Group]
    order: Tensor
    targets: Tensor | None

    @classmethod
    def single(cls, inputs: Tensor, targets: Tensor | None) -> Batch:
        """One group of a single input (B, …), for models without lengths or frozen layers."""
        return cls([Group({"input": inputs}, None)], torch.arange(len(inputs), device=inputs.device), targets)

    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor of the batch, in a fixed order."""
        parts = [t for group in self.groups for t in (*group.inputs.values(), group.prefix, group.pool)]
        return tuple(t for t in (*parts, self.order, self.targets) if t is not None)

    def with_tensors(self, tensors: Sequence[Tensor]) -> Batch:
        """The same batch with other tensors, in the order of `tensors`."""
        rest = iter(tensors)
        groups = [
            Group(
                {name: next(rest) for name in group.inputs},
                None if group.prefix is None else next(rest),
                None if group.pool is None else next(rest),
            )
            for group in self.groups
        ]
        return Batch(groups, next(rest), None if self.targets is None else next(rest))

    def __len__(self) -> int:
        """B."""
        return len(self.order)

    def select(self, places: Sequence[int]) -> Batch:
        """The examples at `places`, in that order. Raises `ConfigError` if this rank has a part of them only."""
        sizes = [len(next(iter(g.inputs.values()))) if g.pool is None else len(g.pool) for g in self.groups]
        if sum(sizes) != len(self.order):
            raise ConfigError(
                "objective: it takes examples of a batch one after another, and the ranks of a group have a part each. "
                "Set workers.ranks_per_group=1."
            )
        groups, order, first = [], torch.full((len(places),), -1), 0
        filled = 0
        stands = self.order.tolist()
        for group, size in zip(self.groups, sizes, strict=True):
            chosen = [(to, stands[place] - first) for to, place in enumerate(places)]
            here = [(to, row) for to, row in chosen if 0 <= row < size]
            first += size
            if not here:
                continue
            rows = torch.tensor([row for _, row in here], device=self.order.device)
            if group.pool is not None:  # several examples share a row: all rows stay
                groups.append(Group(group.inputs, group.prefix, group.pool[rows]))
            else:
                prefix = None if group.prefix is None else group.prefix[rows]
                groups.append(Group({name: tensor[rows] for name, tensor in group.inputs.items()}, prefix))
            for to, _ in here:
                order[to], filled = filled, filled + 1
        targets = None if self.targets is None else self.targets[torch.tensor(places, device=self.targets.device)]
        return Batch(groups, order.to(self.order.device), targets)

    def structure(self) -> Hashable:
        """What two batches must share for `with_tensors` to fit both."""
        groups = tuple((*group.inputs, group.prefix is None, group.pool is None) for group in self.groups)
        return groups, self.targets is None

    @property
    def input(self) -> Tensor:
        """The input of a `single` batch."""
        (group,) = self.groups
        return group.inputs["input"]


@dataclass
class Task:
    """An episode as the model sees it."""

    ways: int
    support: Batch
    query: Batch
    address: TaskAddress | None = None
    """Where the episode came from, for what is annealed or drawn at random; None for one made by hand."""

    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor of the task, the support's first."""
        return (*self.support.tensors(), *self.query.tensors())

    def with_tensors(self, tensors: Sequence[Tensor]) -> Task:
        """The same task with other tensors, in the order of `tensors`."""
        count = len(self.support.tensors())
        return Task(self.ways, self.support.with_tensors(tensors[:count]), self.query.with_tensors(tensors[count:]))

    def structure(self) -> Hashable:
        """What two tasks must share for `with_tensors` to fit both."""
        return self.ways, self.support.structure(), self.query.structure()


class Learner(ABC):
    """A pretrained model whose adaptable parameters are passed in, never held.

    Attributes
    ----------
    initial : Params
        The adaptable parameters as the pretrained model starts with them (leaf tensors without gradient).
    width : int or None
        D, the size of a feature vector; None where there are no features and no head is put on top.
    vocabulary : int
        V, the tokens that a language model chooses the next one from; 0 where there are none.
    device : torch.device
        Where the model lies and batches are put.
    base_parameters : int
        Numbers held by the frozen model.
    ranks : RankGroup
        Who shares the batches. Default: nobody, and where there are several ranks each computes all of them.
    partition : Partition
        Which of the adaptable parameters are parts of what the ranks of a group hold together. Default: none.
    module : nn.Module or None
        The network, for checks that look at its layers; None where there is none.
    """

    module: nn.Module | None = None
    initial: Params
    width: int | None = None
    vocabulary: int = 0
    device: torch.device
    base_parameters: int
    ranks = RankGroup()
    partition = Partition()

    @cached_property
    def traced(self) -> dict[Hashable, Any]:
        """What of problems on this model is compiled, kept from task to task (see `metacl.metagradients.traced`)."""
        return {}

    @abstractmethod
    def encode(self, examples: Any, labels: Any) -> Batch:
        """Turn B examples (texts, or arrays) and their labels, or None, into a batch; frozen layers are computed."""

    @abstractmethod
    def outputs(self, params: Params, batch: Batch) -> Tensor:
        """What is predicted: class scores before the softmax, (B, N), or whatever the loss compares to targets."""

    @abstractmethod
    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Mean loss over the batch, a scalar."""

    def alone(self) -> Self:
        """A view of the same weights for batches that are this rank's own, so that no rows and gradients are summed."""
        view = copy.copy(self)
        view.ranks = RankGroup()
        return view

    def without_prompt(self) -> Self:
        """The same model without embeddings of its own before a text, as it was pretrained. Default: itself."""
        return self

    def features(self, params: Params, batch: Batch) -> Tensor:
        """Feature vectors, (B, D). Raises `ConfigError` if this learner has none."""
        raise ConfigError(
            f"objective: it asks for feature vectors, and a {type(self).__name__} has none. Set objective=maml."
        )

    def scores(self, params: Params, features: Tensor) -> Tensor:
        """Class scores (B, N) of feature vectors (B, D): `outputs` is this of `features`. Raises as `features` does."""
        raise ConfigError(
            f"objective: it changes feature vectors, and a {type(self).__name__} has none. Set objective=maml."
        )

    def divergence(self, before: Params, now: Params, batch: Batch) -> Tensor:
        """KL(before ‖ now) of the next token's distribution, in nats, summed over the tokens that count, (B,).

        Raises `ConfigError` where there are no tokens.
        """
        raise ConfigError(f"probe: a {type(self).__name__} has no distribution over next tokens. Leave it out.")

    def self_supervised_loss(self, params: Params, batch: Batch) -> Tensor:
        """Mean loss of a task that the inputs pose themselves; targets are not read. Raises `ConfigError` if none."""
        raise ConfigError(
            f"objective.by: a {type(self).__name__} has no self-supervised loss of its own. Set objective.by=entropy."
        )

    def sample(self, params: Params, batch: Batch, count: int, seed: int) -> Samples:
        """`count` answers to each input, by the arguments alone. Default: one of the classes, by `outputs`."""
        actions = choose(self.outputs(params, batch), count, seed).unsqueeze(-1)
        return Samples(actions, torch.ones_like(actions))

    def log_probabilities(self, params: Params, batch: Batch, samples: Samples) -> Tensor:
        """Of every action given the input and the actions before it, (B, G, L), differentiable in `params`."""
        return self.outputs(params, batch).log_softmax(-1).gather(-1, samples.actions.squeeze(-1)).unsqueeze(-1)

    def peft_config(self) -> dict[str, Any]:
        """What `peft` wants in adapter_config.json to load the adapter. Raises `ConfigError` if there is none."""
        raise ConfigError(f"learner: a {type(self).__name__} has no PEFT adapter to be stored as an initialization.")

    def save_architecture(self, folder: Path) -> None:
        """Write what transformers wants beside the weights to load the model. Raises `ConfigError` if it is none."""
        raise ConfigError(f"learner: a {type(self).__name__} is no transformers model.")

    def prepare(self, episode: Episode | ArrayEpisode) -> Task:
        """Encode an episode's support and query."""
        if isinstance(episode, ArrayEpisode):
            return Task(episode.ways, self.encode(*episode.support), self.encode(*episode.query), episode.address)
        return Task(
            ways=len(episode.class_names),
            support=self.encode(episode.support_texts, episode.support_labels),
            query=self.encode(episode.query_texts, episode.query_labels),
            address=episode.address,
        )


CPU = torch.device("cpu")


class LearnerConfig(Component):
    """How a learner is made, as a config names it."""

    takes: ClassVar[Literal["text", "arrays"]] = "text"
    """What its episodes must be made of."""
    has_features: ClassVar[bool] = True
    """Whether the learner gives feature vectors."""

    @abstractmethod
    def build(self, seed: int, device: torch.device = CPU, engine: Engine | None = None) -> Learner:
        """Load the model and attach what adapts. `seed` fixes every random initial value."""

    @property
    @abstractmethod
    def double_backward(self) -> bool:
        """Whether every operation on the way has a second derivative (fused attention does not)."""

    @property
    def adapts_whole_model(self) -> bool:
        """Whether every parameter of a pretrained model adapts, so that at ZeRO stage 3 all of it lies in parts."""
        return False

    @property
    def classifies(self) -> bool:
        """Whether it tells classes apart, so that accuracy can be asked for."""
        return True

    @property
    def scores_after(self) -> str | None:
        """What stands before the part of a text that is scored; None where all of it is."""
        return None

    @property
    def few_shapes(self) -> bool:
        """Whether batches of as many examples have one shape, or a few, so that compiling for each pays."""
        return False

    @abstractmethod
    def source(self) -> str:
        """Where the pretrained weights come from, in words."""


LEARNERS: Registry[LearnerConfig] = Registry("learner", "learner")


def parameter_count(params: Mapping[str, Tensor]) -> int:
    """Numbers held by all tensors together."""
    return sum(tensor.numel() for tensor in params.values())


def as_leaves(params: Params) -> Params:
    """The same values as new leaf tensors that require gradients."""
    return {name: tensor.detach().clone().requires_grad_(True) for name, tensor in params.items()}


def use_threads(threads: int) -> None:
    """Fix the threads of one rank. The order of floating-point sums, and so the last bits, depend on it."""
    torch.set_num_threads(threads)
