"""Step sizes in their four modes."""

import pytest
import torch

from metacl.adaptation import SGD, InnerLoop, StepSizes

NAMES = ["adapter.w", "head.bias"]


def sizes(learn):
    return StepSizes(value=0.25, head=2.0, learn=learn)


def test_none_learns_nothing():
    assert sizes("none").initial(NAMES, 3) == {}
    assert [sizes("none").at({}, name, 7).item() for name in NAMES] == [0.25, 2.0]


def test_scalar_is_one_factor_on_both_values():
    assert sizes("scalar").initial(NAMES, 3) == {"step_size.factor": torch.tensor(1.0)}
    meta = {"step_size.factor": torch.tensor(3.0)}
    assert [sizes("scalar").at(meta, name, 7).item() for name in NAMES] == [0.75, 6.0]


def test_tensor_has_one_a_tensor():
    meta = sizes("tensor").initial(NAMES, 3)
    assert meta == {"step_size.adapter.w": torch.tensor(0.25), "step_size.head.bias": torch.tensor(2.0)}
    meta["step_size.adapter.w"] = torch.tensor(0.5)
    assert [sizes("tensor").at(meta, name, 7).item() for name in NAMES] == [0.5, 2.0]


def test_tensor_and_step_has_one_a_tensor_and_step():
    meta = sizes("tensor_and_step").initial(NAMES, 3)
    assert {name: tensor.tolist() for name, tensor in meta.items()} == {
        "step_size.adapter.w": [0.25, 0.25, 0.25],
        "step_size.head.bias": [2.0, 2.0, 2.0],
    }
    meta["step_size.adapter.w"] = torch.tensor([1.0, 2.0, 3.0])
    found = [sizes("tensor_and_step").at(meta, "adapter.w", step).item() for step in range(6)]
    assert found == [1.0, 2.0, 3.0, 3.0, 3.0, 3.0]  # beyond the trained steps: the last


def test_tensor_and_step_without_steps_has_one():
    meta = sizes("tensor_and_step").initial(NAMES, 0)
    assert meta["step_size.adapter.w"].tolist() == [0.25]
    assert sizes("tensor_and_step").at(meta, "adapter.w", 4).item() == 0.25


@pytest.mark.parametrize("learn", ["none", "scalar", "tensor", "tensor_and_step"])
def test_untrained_step_sizes_are_the_same_in_every_mode(learn):
    loop = InnerLoop(steps=2, step_size=sizes(learn))
    meta = loop.step_size.initial(NAMES, loop.steps)
    for step in range(4):
        assert {name: rate.item() for name, rate in loop.rates(meta, NAMES, step).items()} == {
            "adapter.w": 0.25,
            "head.bias": 2.0,
        }


@pytest.mark.parametrize(("learn", "expected"), [("scalar", 0.25), ("tensor", 1.0), ("tensor_and_step", [0.0, 1.0])])
def test_rates_are_differentiable(learn, expected):
    meta = {name: tensor.requires_grad_() for name, tensor in sizes(learn).initial(["adapter.w"], 2).items()}
    (gradient,) = torch.autograd.grad(sizes(learn).at(meta, "adapter.w", 1), list(meta.values()))
    assert gradient.tolist() == expected


def test_defaults():
    loop = InnerLoop()
    assert loop.optimizer == SGD()
    assert loop.step_size.learn == "tensor"
