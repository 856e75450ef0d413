"""Step sizes in all their modes."""

import pytest
import torch

from metacl.adaptation import SGD, InnerLoop, StepSizes
from metacl.errors import ConfigError

NAMES = {"adapter.w": torch.Size((2, 3)), "head.bias": torch.Size((2,))}
LEARN = ["none", "scalar", "layer", "layer_and_step", "tensor", "tensor_and_step", "parameter"]


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


LAYERED = [
    "adapter.model.layer.0.query.lora_A.weight",
    "adapter.model.layer.0.mlp.experts.3.weight",
    "adapter.model.layer.11.query.lora_A.weight",
    "adapter.embeddings.weight",
    "adapter.norm2.weight",
    "head.0.weight",
    "head.bias",
]
LAYERS = ["adapter.model.layer.0", "adapter.model.layer.0", "adapter.model.layer.11", "rest", "rest", "head", "head"]


def test_layer_is_the_first_number_in_a_name():
    meta = sizes("layer").initial(dict.fromkeys(LAYERED), 3)
    assert meta == {f"step_size.{layer}": torch.tensor(2.0 if layer == "head" else 0.25) for layer in LAYERS}
    meta = {name: torch.tensor(float(number)) for number, name in enumerate(meta)}
    found = [sizes("layer").at(meta, name, 9).item() for name in LAYERED]
    assert found == [0.0, 0.0, 1.0, 2.0, 2.0, 3.0, 3.0]


def test_layer_and_step_has_one_a_layer_and_step():
    meta = sizes("layer_and_step").initial(dict.fromkeys(LAYERED), 2)
    assert {name: tensor.tolist() for name, tensor in meta.items()} == {
        f"step_size.{layer}": [2.0, 2.0] if layer == "head" else [0.25, 0.25] for layer in LAYERS
    }
    meta["step_size.adapter.model.layer.11"] = torch.tensor([1.0, 2.0])
    assert [sizes("layer_and_step").at(meta, LAYERED[2], step).item() for step in range(3)] == [1.0, 2.0, 2.0]


def test_parameter_has_one_a_number():
    meta = sizes("parameter").initial(NAMES, 3)
    assert {name: tensor.shape for name, tensor in meta.items()} == {f"step_size.{n}": s for n, s in NAMES.items()}
    assert meta["step_size.head.bias"].tolist() == [2.0, 2.0]


def test_parameter_needs_to_know_the_shape():
    with pytest.raises(ConfigError) as caught:
        sizes("parameter").initial({"adapter.w": torch.Size((2,)), "head.weight": None}, 3)
    for word in ("inner.step_size.learn", "head.weight", "objective=maml"):
        assert word in str(caught.value)


@pytest.mark.parametrize("learn", LEARN)
def test_untrained_step_sizes_are_the_same_in_every_mode(learn):
    loop = InnerLoop(steps=2, step_size=sizes(learn))
    meta = loop.step_size.initial(NAMES, loop.steps)
    for step in range(4):
        rates = loop.rates(meta, list(NAMES), step)
        assert {name: rate.unique().tolist() for name, rate in rates.items()} == {
            "adapter.w": [0.25],
            "head.bias": [2.0],
        }


@pytest.mark.parametrize(
    ("learn", "expected"),
    [
        ("scalar", 0.25),
        ("layer", 1.0),
        ("layer_and_step", [0.0, 1.0]),
        ("tensor", 1.0),
        ("tensor_and_step", [0.0, 1.0]),
        ("parameter", [1.0, 1.0]),
    ],
)
def test_rates_are_differentiable(learn, expected):
    initial = sizes(learn).initial({"adapter.w": torch.Size((2,))}, 2)
    meta = {name: tensor.requires_grad_() for name, tensor in initial.items()}
    (gradient,) = torch.autograd.grad(sizes(learn).at(meta, "adapter.w", 1).sum(), list(meta.values()))
    assert gradient.tolist() == expected


def test_defaults():
    loop = InnerLoop()
    assert loop.optimizer == SGD()
    assert loop.step_size.learn == "tensor"
