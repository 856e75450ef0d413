"""Every objective learns something to be seen: classes that differ in two of six numbers, the others being noise."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from metacl.adaptation import InnerLoop, StepSizes
from metacl.learners import FeatureLearner
from metacl.learners.base import Task, as_leaves
from metacl.metagradients import Reverse, adapt, plain_gradient
from metacl.objectives import OBJECTIVES, SequenceMAML
from metacl.tasks import TaskAddress

OWN = {"cavia": {"size": 3, "into": ["*"]}, "adversarial": {"of": "maml"}, "policy_gradient": {"samples": 64}}
RATES = {"policy_gradient": 3.0}
"""A reward of 0 or 1 has a smaller gradient than a cross-entropy."""
HEAD_STAYS = {"boil", "cavia", "unlabelled"}
"""Classes of these must be the same in every task: which is which cannot be read from the support."""


class Blobs(FeatureLearner):
    """Features tanh(W x + b), (B, 4). It can guess the mean of its inputs, for want of another task of its own."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Linear(6, 4), nn.Tanh()), F.cross_entropy, width=4)

    def self_supervised_loss(self, params, batch):
        return F.mse_loss(self.features(params, batch)[:, 0], batch.input.mean(-1))

    def task(self, step, index, fixed):
        generator = torch.Generator().manual_seed(1000 * step + index)
        centres = torch.zeros(3, 6)
        centres[:, :2] = torch.tensor([[1.5, 0.0], [-1.0, 1.2], [-1.0, -1.2]])
        if not fixed:
            centres = centres[torch.randperm(3, generator=generator)]
        labels = torch.arange(3).repeat(4)
        x = centres[labels] + torch.tensor([0.3, 0.3, 2, 2, 2, 2]) * torch.randn(12, 6, generator=generator)
        support, query = self.encode(x[:6], labels[:6]), self.encode(x[6:], labels[6:])
        return Task(3, support, query, TaskAddress("train", 0, step, index))


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_adapted_accuracy_rises(name):
    objective, learner = OBJECTIVES.build({"name": name, **OWN.get(name, {})}), Blobs()
    rate = RATES.get(name, 0.3)
    sizes = StepSizes(value=rate, head=rate, learn="none")
    loop = InnerLoop(steps=6 if isinstance(objective, SequenceMAML) else 3, step_size=sizes)  # six are one pass
    meta = as_leaves(objective.meta_parameters(learner, loop, 3))
    optimizer = torch.optim.Adam(meta.values(), lr=0.05)

    def problem(step, index):
        task = learner.task(step, index, name in HEAD_STAYS)
        return task, objective.problem(learner, meta, task, loop)

    def accuracy():
        right = []
        for index in range(30):
            task, unseen = problem(10_000, index)
            start = {key: tensor.detach() for key, tensor in unseen.start(meta).items()}
            end = adapt(unseen, plain_gradient(unseen), start).theta
            scores = objective.outputs(learner, objective.bind(end, meta), task.query)
            right.append((scores.argmax(-1) == task.query.targets).double().mean())
        return float(torch.stack(right).mean())

    first = accuracy()
    for step in range(25):
        gradients = [Reverse().estimate(problem(step, index)[1]).gradient for index in range(4)]
        for key, tensor in meta.items():
            tensor.grad = torch.stack([gradient[key] for gradient in gradients]).mean(0)
        optimizer.step()
    last = accuracy()
    assert last > first + 0.1, f"{name}: {first:.2f} -> {last:.2f} on tasks it has not seen"
