"""Inner optimizers against torch.optim in float64, and their derivatives where they are delicate."""

import math

import pytest
import torch
from pydantic import ValidationError

from metacl.adaptation import INNER_OPTIMIZERS, SGD, Adam, AdamW

RULES = {
    "sgd": (SGD(), torch.optim.SGD, {}),
    "momentum": (SGD(momentum=0.9), torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (SGD(momentum=0.8, nesterov=True), torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
    "adam": (Adam(), torch.optim.Adam, {}),
    "adam, large eps": (Adam(eps=0.1), torch.optim.Adam, {"eps": 0.1}),
    "adam, betas": (Adam(betas=(0.5, 0.7)), torch.optim.Adam, {"betas": (0.5, 0.7)}),
    "adam, weight decay": (Adam(weight_decay=0.3), torch.optim.Adam, {"weight_decay": 0.3}),
    "adamw": (AdamW(), torch.optim.AdamW, {}),
    "adamw, weight decay": (AdamW(weight_decay=0.3, eps=0.01), torch.optim.AdamW, {"weight_decay": 0.3, "eps": 0.01}),
    "adamw, no decay": (AdamW(weight_decay=0.0), torch.optim.AdamW, {"weight_decay": 0.0}),
}
RATES = {"a": 0.1, "b": 0.02, "c": 0.7}


def start():
    torch.manual_seed(0)
    return {
        "a": torch.randn(3, 2, dtype=torch.float64),
        "b": torch.randn(4, dtype=torch.float64),
        "c": torch.randn((), dtype=torch.float64),
    }


def updated(rule, params, grads, state, rates, step):
    """θ_{k+1}, s_{k+1}."""
    moved, state = rule.displacement(params, grads, state, rates, step)
    return {name: tensor - moved[name] for name, tensor in params.items()}, state


def loss_of(params):
    """Couples the tensors, so that a wrong step of one shows in the gradients of all."""
    return (params["a"].tanh().sum() * params["c"] + (params["b"] ** 2).sum()).cos() + (params["a"] ** 4).sum() / 4


@pytest.mark.parametrize("rule", RULES)
def test_steps_equal_torchs(rule):
    ours, kind, options = RULES[rule]
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in start().items()}
    theirs = kind([{"params": [leaf], "lr": RATES[name]} for name, leaf in leaves.items()], **options)
    theta, state = start(), {}
    rates = {name: torch.tensor(rate, dtype=torch.float64) for name, rate in RATES.items()}
    for step in range(6):
        theirs.zero_grad()
        loss_of(leaves).backward()
        theirs.step()
        inner = {name: tensor.detach().requires_grad_() for name, tensor in theta.items()}
        grads = dict(zip(inner, torch.autograd.grad(loss_of(inner), list(inner.values())), strict=True))
        theta, state = updated(ours, theta, grads, state, rates, step)
        for name, leaf in leaves.items():
            torch.testing.assert_close(theta[name], leaf.detach(), rtol=0, atol=1e-12)
    assert all((theta[name] - tensor).abs().max() > 1e-3 for name, tensor in start().items())


@pytest.mark.parametrize("rule", RULES)
def test_a_step_changes_nothing_in_place(rule):
    theta, rates = start(), {name: torch.tensor(rate) for name, rate in RATES.items()}
    grads = {name: torch.ones_like(tensor) for name, tensor in theta.items()}
    _, state = updated(RULES[rule][0], theta, grads, {}, rates, 0)
    before = {slot: {name: tensor.clone() for name, tensor in tensors.items()} for slot, tensors in state.items()}
    updated(RULES[rule][0], theta, grads, state, rates, 1)
    for name, tensor in start().items():
        assert torch.equal(theta[name], tensor)
        assert torch.equal(grads[name], torch.ones_like(tensor))
        assert all(torch.equal(state[slot][name], before[slot][name]) for slot in state)


@pytest.mark.parametrize("rule", RULES)
def test_derivatives_of_three_steps_are_right(rule):
    # In everything at once: parameters, gradients, step sizes.
    torch.manual_seed(1)

    def three_steps(theta, first, second, third, rate):
        params, state = {"a": theta}, {}
        for step, grad in enumerate((first, second, third)):
            params, state = updated(RULES[rule][0], params, {"a": grad}, state, {"a": rate}, step)
        return params["a"]

    inputs = [torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    rate = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(three_steps, (*inputs, rate), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("rule", [Adam(), AdamW()], ids=["adam", "adamw"])
def test_gradient_through_an_exactly_zero_gradient_is_finite(rule):
    theta = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    grad = torch.tensor([0.0, 0.5], dtype=torch.float64, requires_grad=True)
    rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    params, state = {"a": theta}, {}
    for step in range(3):
        params, state = updated(rule, params, {"a": grad}, state, {"a": rate}, step)
    for derivative in torch.autograd.grad(params["a"].sum(), (theta, grad, rate)):
        assert torch.isfinite(derivative).all()


def test_adam_at_zero_has_the_derivative_of_its_closed_form():
    # The first step is θ − η g / (|g| + ε); at g = 0 its derivative is −η / ε.
    grad = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    rate = torch.tensor(0.1, dtype=torch.float64)
    moved, _ = updated(Adam(eps=0.01), {"a": torch.ones(2, dtype=torch.float64)}, {"a": grad}, {}, {"a": rate}, 0)
    assert torch.equal(moved["a"], torch.ones(2, dtype=torch.float64))
    (derivative,) = torch.autograd.grad(moved["a"].sum(), grad)
    torch.testing.assert_close(derivative, torch.full((2,), -10.0, dtype=torch.float64))


def test_momentum_by_hand():
    theta, state = {"a": torch.tensor(1.0)}, {}
    rates = {"a": torch.tensor(0.5)}
    theta, state = updated(SGD(momentum=0.5), theta, {"a": torch.tensor(2.0)}, state, rates, 0)
    assert theta["a"] == 1.0 - 0.5 * 2.0
    theta, state = updated(SGD(momentum=0.5), theta, {"a": torch.tensor(4.0)}, state, rates, 1)
    assert theta["a"] == 0.0 - 0.5 * (0.5 * 2.0 + 4.0)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (SGD, {"nesterov": True}),
        (SGD, {"momentum": 1.0}),
        (SGD, {"momentum": -0.1}),
        (SGD, {"weight_decay": 0.1}),
        (Adam, {"betas": (0.9, 1.0)}),
        (Adam, {"eps": 0.0}),
        (AdamW, {"weight_decay": -1.0}),
    ],
)
def test_options_that_cannot_be(kind, options):
    with pytest.raises(ValidationError):
        kind(**options)


def test_names():
    assert INNER_OPTIMIZERS.names() == ["adam", "adamw", "sgd"]
    assert math.isclose(INNER_OPTIMIZERS.build({"name": "adamw"}).weight_decay, 0.01)  # torch's default
