"""Joint multi-task training: one classifier of all training classes, in the same adapter that the meta-learner trains.

Classes of several data sets are classes of one classifier, each equally likely.

Its head is thrown away: a new task gets one from the class means of its support, and fine-tunes it with the adapter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy

from metacl.coordination.worker import Worker
from metacl.learners.base import Batch, Params, as_leaves
from metacl.objectives import class_means
from metacl.tasks.class_episodes import ClassEpisodes

BATCH = 64
"""Texts a step, every training class equally likely."""
FIRST = 5
"""Texts of each class whose mean features the head starts from, as a task's does."""


def train(worker: Worker, steps: int, learning_rate: float) -> Params:
    """The adapter after so many steps of AdamW, whose learning rate falls in a straight line to zero."""
    learner, classes = worker.learner, training_classes(worker)
    random = torch.Generator().manual_seed(0)
    adapter = as_leaves(dict(learner.initial))
    with torch.no_grad():
        first = [text for texts in classes for text in texts[:FIRST]]
        labels = torch.arange(len(classes)).repeat_interleave(FIRST)
        means = class_means(learner.features(adapter, learner.encode(first, None)), labels, len(classes))
    head = as_leaves({"head.weight": 2 * means, "head.bias": -(means * means).sum(-1)})
    parameters = [*adapter.values(), *head.values()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
        optimizer.zero_grad()
        loss_on(worker, {**adapter, **head}, batch(worker, classes, random)).backward()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in adapter.items()}


def training_classes(worker: Worker) -> list[Sequence[str]]:
    """The texts of each training class of every source."""
    found: list[Sequence[str]] = []
    for part in worker.config.data.parts:
        source = part.open()
        assert isinstance(source, ClassEpisodes)
        found += [source.texts[name] for name in source.classes["train"]]
    return found


def batch(worker: Worker, classes: Sequence[Sequence[str]], random: torch.Generator) -> Batch:
    """The next one."""
    labels = torch.randint(len(classes), (BATCH,), generator=random).tolist()
    chosen = [of[int(torch.randint(len(of), (), generator=random))] for of in (classes[label] for label in labels)]
    return worker.learner.encode(chosen, labels)


def loss_on(worker: Worker, params: Params, of: Batch) -> torch.Tensor:
    """Mean cross-entropy over all training classes."""
    return cross_entropy(worker.learner.outputs(params, of), of.targets)
