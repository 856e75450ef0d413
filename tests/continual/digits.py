"""The digits streams of `avalanche_digits.json`, and the network that its runs were made with.

That file holds runs of Avalanche 0.6.0 (ContinualAI, MIT licence) on scikit-learn's digits: R matrices, accuracies
before training and the norm of the parameters, with the protocol in its "meta".
"""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from metacl.continual.experience import Examples, Experience, Stream
from metacl.continual.loop import ContinualLoop
from metacl.continual.strategies import STRATEGIES
from metacl.continual.training import Training
from metacl.learners import ModuleLearner

ORACLE = json.loads((Path(__file__).parent / "avalanche_digits.json").read_text())


def oracle(stream, method):
    (row,) = (row for row in ORACLE["rows"] if (row["stream"], row["method"]) == (f"split-digits-{stream}", method))
    return row


@lru_cache
def digits(kind):
    """Five experiences of two digits: 10 labels ("class"), or odd and even ("domain")."""
    digits = load_digits()
    images = (digits.data / 16).astype(np.float32)
    parts = train_test_split(images, digits.target, test_size=0.25, random_state=0, stratify=digits.target)
    x, x_test, y, y_test = parts
    experiences = []
    for first in range(0, 10, 2):

        def of(inputs, labels, first=first):
            rows = np.isin(labels, (first, first + 1))
            found = labels[rows] if kind == "class" else labels[rows] % 2
            return Examples(inputs[rows], tuple(int(label) for label in found))

        experiences.append(Experience(f"{first} and {first + 1}", of(x, y), of(x_test, y_test)))
    return Stream(tuple(experiences), tuple(map(str, range(10 if kind == "class" else 2))))


def network(seed, outputs):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, outputs))


def digits_loop(kind, strategies=(), seed=0, network_seed=0, scenario="class", start=None, **training):
    stream = digits(kind)
    options = {"epochs": 20, "batch_size": 32, "learning_rate": 0.02, "shuffle": False, **training}
    return ContinualLoop(
        ModuleLearner(network(network_seed, len(stream.class_names)), F.cross_entropy),
        stream,
        Training(**options),
        [STRATEGIES.build(dict(options)) for options in strategies],
        seed=seed,
        start=start,
        scenario=scenario,
    )


def run(loop, standing=None):
    standing = standing or loop.begin()
    while len(standing.record.rows) < len(loop.stream):
        standing = loop.learn(standing)
    return standing
