"""Gradients as an aggregator is given them."""

import numpy as np

from metacl.aggregation import Contribution
from metacl.tasks import TaskAddress


def flat(*numbers):
    return np.array(numbers, dtype=np.float32)


def contributions(gradients, examples=None):
    examples = examples or [1] * len(gradients)
    return [
        Contribution(TaskAddress("train", 0, 0, index), gradient, count)
        for index, (gradient, count) in enumerate(zip(gradients, examples, strict=True))
    ]


def random_gradients(tasks, size, seed=0):
    return list(np.random.default_rng(seed).standard_normal((tasks, size)).astype(np.float32))
