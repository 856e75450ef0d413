"""Four diagonals, against closed forms in float64: softmax regression, whose gradients are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from metacl.continual.experience import Examples, Experience, Stream
from metacl.continual.fisher import fisher
from metacl.continual.lora import from_offsets, products
from metacl.continual.model import Model
from metacl.continual.moment import Moment
from metacl.continual.pool import Pool
from metacl.learners import ModuleLearner

EXAMPLES, INPUTS, CLASSES = 24, 5, 3


@pytest.fixture
def problem():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((EXAMPLES, INPUTS))
    labels = tuple(int(label) for label in generator.integers(0, CLASSES, EXAMPLES))
    examples = Examples(x, labels)
    stream = Stream((Experience("one", examples, examples),), ("a", "b", "c"))
    torch.manual_seed(0)
    learner = ModuleLearner(nn.Linear(INPUTS, CLASSES).double(), F.cross_entropy)
    moment = Moment(Model(learner, CLASSES), Pool(learner, stream, 8), dict(learner.initial), seed=0, batch_size=6)
    weight, bias = learner.initial["module.weight"].numpy(), learner.initial["module.bias"].numpy()
    scores = x @ weight.T + bias
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return SimpleNamespace(moment=moment, x=x, y=np.array(labels), p=p, addresses=stream.train_addresses(0))


def found(problem, kind):
    return fisher(problem.moment, problem.moment.start, problem.addresses, kind, 6, lambda same: same)


def gradients(problem, labels):
    """∇ log p(label | x) of the weights (B, C, D): (1[c = label] − p_c) x."""
    return (np.eye(CLASSES)[labels] - problem.p)[:, :, None] * problem.x[:, None, :]


def test_empirical(problem):
    wanted = (gradients(problem, problem.y) ** 2).mean(0)
    assert np.allclose(found(problem, "empirical")["module.weight"], wanted, rtol=1e-12)


def test_exact(problem):
    every = [problem.p[:, c, None, None] * gradients(problem, np.full(EXAMPLES, c)) ** 2 for c in range(CLASSES)]
    wanted = np.sum(every, 0).mean(0)
    assert np.allclose(found(problem, "exact")["module.weight"], wanted, rtol=1e-12)
    # In one more way: for softmax regression it is p (1 − p) x².
    assert np.allclose(wanted, ((problem.p * (1 - problem.p))[:, :, None] * problem.x[:, None, :] ** 2).mean(0))


def test_sampled_is_exact_on_average(problem):
    draws = [
        fisher(problem.moment.at(0, step), problem.moment.start, problem.addresses, "sampled", 6, lambda same: same)
        for step in range(150)
    ]
    weights = np.stack([draw["module.weight"].numpy() for draw in draws])
    error = weights.std(0) / len(draws) ** 0.5
    assert (np.abs(weights.mean(0) - found(problem, "exact")["module.weight"].numpy()) < 4 * error).all()
    assert weights.std(0).min() > 0  # it does draw


def test_batched_squares_the_mean(problem):
    parts = gradients(problem, problem.y).reshape(-1, 6, CLASSES, INPUTS).mean(1)
    assert np.allclose(found(problem, "batched")["module.weight"], (parts**2).mean(0), rtol=1e-12)


def test_on_the_product_of_lora_factors():
    # dL/dΔW of a linear layer is known; the factors themselves never enter it.
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, INPUTS, dtype=torch.float64, generator=generator)
    b = torch.randn(CLASSES, 2, dtype=torch.float64, generator=generator)
    x = torch.randn(INPUTS, dtype=torch.float64, generator=generator)
    params = {"adapter.q.lora_A.weight": a, "adapter.q.lora_B.weight": b, "head.bias": torch.zeros(1)}
    assert torch.equal(products(params)["adapter.q.delta"], b @ a)
    offset = torch.zeros(CLASSES, INPUTS, dtype=torch.float64, requires_grad=True)
    bound = from_offsets(params, {"adapter.q.delta": offset, "head.bias": params["head.bias"]})
    output = bound["adapter.q.lora_B.weight"] @ (bound["adapter.q.lora_A.weight"] @ x)
    assert torch.allclose(output, b @ a @ x)
    (gradient,) = torch.autograd.grad(output.square().sum() / 2, offset)
    assert torch.allclose(gradient, torch.outer(b @ a @ x, x))
