"""The smallest things that have every dependence of real ones: a loop, a task, a learner; smooth, in float64."""

from __future__ import annotations

import zlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metacl.adaptation import SGD, InnerLoop, StepSizes
from metacl.learners.base import CPU, Batch, Learner, Params, Task
from metacl.metagradients import InnerProblem
from metacl.objectives import class_means

LOOP = InnerLoop(
    steps=3,
    optimizer=SGD(momentum=0.5),
    step_size=StepSizes(value=0.1, head=0.2, learn="tensor_and_step"),
    proximal=0.5,
)
"""Momentum, a learned step size for every tensor and step, and a proximal term."""

SIZE = 3
"""Numbers in an input and in a feature vector."""


class TinyLearner(Learner):
    """features = tanh(W x + b); a text becomes an x of its own. Its head is whatever an objective passes in."""

    def __init__(self) -> None:
        self.width = SIZE
        self.device = CPU
        self.base_parameters = 0
        self.initial = {"adapter.0.weight": normal(0, SIZE, SIZE), "adapter.0.bias": normal(1, SIZE)}

    def encode(self, examples: Any, labels: Any) -> Batch:
        """B texts, (B, SIZE)."""
        x = torch.stack([normal(zlib.crc32(text.encode()), SIZE) for text in examples])
        return Batch.single(x, None if labels is None else torch.tensor(labels))

    def features(self, params: Params, batch: Batch) -> Tensor:
        """See the class, (B, SIZE)."""
        return torch.tanh(F.linear(batch.input, params["adapter.0.weight"], params["adapter.0.bias"]))

    def outputs(self, params: Params, batch: Batch) -> Tensor:
        """Linear scores, (B, N)."""
        return self.scores(params, self.features(params, batch))

    def scores(self, params: Params, features: Tensor) -> Tensor:
        """The linear head, (B, N)."""
        return F.linear(features, params["head.weight"], params["head.bias"])

    def self_supervised_loss(self, params: Params, batch: Batch) -> Tensor:
        """Each number of an input from the features, all of them at once."""
        return F.mse_loss(self.features(params, batch), batch.input)

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Cross-entropy."""
        assert batch.targets is not None
        return F.cross_entropy(self.outputs(params, batch), batch.targets)

    def task(self, ways: int) -> Task:
        """Two support and two query examples a class."""
        labels = [*range(ways), *range(ways)]
        support, query = (
            self.encode([f"{part} {i}" for i in range(len(labels))], labels) for part in ("support", "query")
        )
        return Task(ways, support, query)


def tiny_problem(loop: InnerLoop) -> InnerProblem:
    """A task whose start, support loss and query loss all depend on φ, by the adapted parameters and beside them."""
    learner = TinyLearner()
    task = learner.task(ways=2)
    assert task.support.targets is not None
    targets = task.support.targets

    def start(phi: Params) -> Params:
        means = class_means(learner.features(phi, task.support), targets, task.ways)
        adapter = {name: phi[name] for name in learner.initial}
        return {**adapter, "head.weight": 2 * means, "head.bias": -(means * means).sum(-1)}

    def support_loss(theta: Params, phi: Params, step: int) -> Tensor:
        logits = phi["temperature"].exp() * learner.outputs(theta, task.support)
        pull = ((theta["adapter.0.bias"] - phi["adapter.0.bias"].tanh()) ** 2).sum()
        return (1 + 0.1 * step) * F.cross_entropy(logits, targets) + 0.2 * pull

    def query_loss(theta: Params, phi: Params) -> Tensor:
        return learner.loss(theta, task.query) + 0.05 * (phi["adapter.0.weight"] ** 2).sum() + 0.1 * phi["temperature"]

    learned = {**learner.initial, "temperature": torch.tensor(0.3, dtype=torch.float64)}
    adapted = {"head.weight": torch.Size((2, SIZE)), "head.bias": torch.Size((2,))}
    shapes = {**{name: tensor.shape for name, tensor in learner.initial.items()}, **adapted}
    return InnerProblem(
        spread({**learned, **loop.step_size.initial(shapes, loop.steps)}), start, support_loss, query_loss, loop
    )


def spread(meta: Params) -> Params:
    """Leaves in float64, every number a little different, so that zeros and mixed-up tensors do not hide anything."""
    return {
        name: (1.1 * tensor.double() + 0.02 * normal(zlib.crc32(name.encode()), *tensor.shape)).requires_grad_()
        for name, tensor in meta.items()
    }


def normal(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers that are always the same."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
