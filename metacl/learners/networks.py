"""Networks of one's own as learners of a config, and the two that meta-learning's first tables were made with.

A network of yours is one class: derive from `ModuleConfig`, write `network` and `loss`, register it with
``@LEARNERS.register("name")`` and name its module under ``plugins``. All its weights are learned; nothing is frozen.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from metacl.learners.base import CPU, LEARNERS, Batch, LearnerConfig, Params
from metacl.learners.engine import Engine
from metacl.learners.module import ModuleLearner

Activation = Literal["relu", "tanh", "gelu"]


class ModuleConfig(LearnerConfig):
    """Base of learners that are an `nn.Module` of one's own, trained from random weights."""

    takes: ClassVar[Literal["text", "arrays"]] = "arrays"
    has_features: ClassVar[bool] = False
    head: ClassVar[str | None] = None
    """Path of the submodule that is the head; see `ModuleLearner`."""

    @abstractmethod
    def network(self) -> nn.Module:
        """A new network; its initial values may be random, the seed is set."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over the batch."""

    def build(self, seed: int, device: torch.device = CPU, engine: Engine | None = None) -> ModuleLearner:
        """Make the network. There is nothing frozen that an engine could hold."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self.network()
        return ModuleLearner(network.to(device), self.loss, self.head)

    @property
    def double_backward(self) -> bool:
        """Every ordinary module has it."""
        return True

    @property
    def few_shapes(self) -> bool:
        """Arrays come in the episodes' own shape."""
        return True

    def source(self) -> str:
        """Random values."""
        return "random weights"


@LEARNERS.register("mlp")
class MLP(ModuleConfig):
    """A multilayer perceptron for regression with squared error.

    The defaults are the sinusoid network of Finn et al. 2017, sec. 5.1: two hidden layers of 40 ReLU.
    """

    head: ClassVar[str | None] = "head"

    inputs: PositiveInt = 1
    outputs: PositiveInt = 1
    hidden: tuple[PositiveInt, ...] = (40, 40)
    activation: Activation = "relu"

    def network(self) -> nn.Module:
        """Linear layers with an activation between."""
        widths = (self.inputs, *self.hidden)
        body = _perceptron(widths, self.activation)
        return nn.Sequential(OrderedDict(body=body, head=nn.Linear(widths[-1], self.outputs)))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error."""
        return F.mse_loss(outputs, targets)


@LEARNERS.register("mlp_classifier")
class MLPClassifier(ModuleConfig):
    """A multilayer perceptron on rows of numbers that gives features; the head is the objective's.

    The layers that `mlp` has, each with its activation.
    """

    has_features: ClassVar[bool] = True

    inputs: PositiveInt
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 64)
    activation: Activation = "relu"

    def network(self) -> nn.Module:
        """Rows (B, inputs) to features (B, hidden[-1])."""
        return _perceptron((self.inputs, *self.hidden), self.activation)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(outputs, targets)

    def build(self, seed: int, device: torch.device = CPU, engine: Engine | None = None) -> FeatureLearner:
        """Make the network."""
        plain = super().build(seed, device, engine)
        assert plain.module is not None
        return FeatureLearner(plain.module, self.loss, self.hidden[-1])


def _perceptron(widths: tuple[int, ...], activation: Activation) -> nn.Sequential:
    kind = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}[activation]
    return nn.Sequential(*(layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), kind())))


@LEARNERS.register("conv")
class ConvNet(ModuleConfig):
    """Four 3×3 convolutions with batch norm (Vinyals et al. 2016) that give features; the head is the objective's.

    Stride 2 in place of max pooling, as Finn et al. 2017, sec. 5.2 have it for Omniglot. Batch norm uses the
    statistics of the batch at hand in training and in testing ("transductive", as in that paper).
    """

    has_features: ClassVar[bool] = True

    filters: PositiveInt = 64
    layers: PositiveInt = 4
    channels: PositiveInt = 1

    def network(self) -> nn.Module:
        """Images (B, C, H, W) to features (B, filters)."""
        layers: list[nn.Module] = []
        for place in range(self.layers):
            before = self.filters if place else self.channels
            # No bias: batch norm would take it away again.
            convolution = nn.Conv2d(before, self.filters, 3, stride=2, padding=1, bias=False)
            layers += [nn.Sequential(convolution, nn.BatchNorm2d(self.filters, track_running_stats=False), nn.ReLU())]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(outputs, targets)

    def build(self, seed: int, device: torch.device = CPU, engine: Engine | None = None) -> FeatureLearner:
        """Make the network."""
        plain = super().build(seed, device, engine)
        assert plain.module is not None
        return FeatureLearner(plain.module, self.loss, self.filters)


class FeatureLearner(ModuleLearner):
    """A module whose outputs are feature vectors (B, D), with a linear head on top that is passed in."""

    def __init__(self, module: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], width: int) -> None:
        super().__init__(module, loss)
        self.width = width

    def features(self, params: Params, batch: Batch) -> Tensor:
        """What the module returns, (B, D)."""
        return super().outputs(params, batch)

    def scores(self, params: Params, features: Tensor) -> Tensor:
        """The linear head, (B, N)."""
        return F.linear(features, params["head.weight"], params["head.bias"])

    def outputs(self, params: Params, batch: Batch) -> Tensor:
        """Class scores, (B, N)."""
        return self.scores(params, self.features(params, batch))
