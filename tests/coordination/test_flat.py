"""Named tensors as one buffer and back."""

import hashlib

import numpy as np
import pytest
import torch

from metacl.coordination.flat import FlatLayout, checksum

PARAMS = {
    "b.matrix": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
    "a.vector": torch.tensor([7.0, 8.0]),
    "step_size.a": torch.tensor(9.0),
    "c.empty": torch.zeros(0, 3),
}


def test_sorted_by_name_one_after_the_other():
    layout = FlatLayout.of(PARAMS)
    assert layout.shapes == (("a.vector", (2,)), ("b.matrix", (2, 3)), ("c.empty", (0, 3)), ("step_size.a", ()))
    assert layout.size == 9
    assert layout.flatten(PARAMS).tolist() == [7, 8, 1, 2, 3, 4, 5, 6, 9]


def test_round_trip():
    layout = FlatLayout.of(PARAMS)
    back = layout.unflatten(layout.flatten(PARAMS))
    assert list(back) == sorted(PARAMS)
    for name, tensor in PARAMS.items():
        assert torch.equal(back[name], tensor)
        assert back[name].dtype == torch.float32


def test_transposed_memory_is_read_by_position():
    matrix = torch.arange(6.0).reshape(3, 2).T
    assert FlatLayout.of({"a": matrix}).flatten({"a": matrix}).tolist() == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize("params", [PARAMS, {"alone": torch.arange(4.0)}], ids=["many", "one"])
def test_nothing_shares_memory(params):
    layout = FlatLayout.of(params)
    before = {name: tensor.clone() for name, tensor in params.items()}
    flat = layout.flatten(params)
    back = layout.unflatten(flat)
    flat += 100
    assert all(torch.equal(params[name], before[name]) for name in params)
    assert all(torch.equal(back[name], before[name]) for name in params)


def test_read_only_buffer_is_fine():
    flat = np.arange(3, dtype=np.float32)
    flat.setflags(write=False)  # as Ray hands it out
    back = FlatLayout.of({"a": torch.zeros(3)}).unflatten(flat)
    back["a"] += 1
    assert flat.tolist() == [0, 1, 2]


def test_gradient_history_is_left_behind():
    params = {"a": torch.ones(2, requires_grad=True)}
    assert not FlatLayout.of(params).unflatten(FlatLayout.of(params).flatten(params))["a"].requires_grad


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.zeros(2), "b": torch.zeros(3)},
        {"a": torch.zeros(2)},
        {"a": torch.zeros(2), "c": torch.zeros(2)},
        {"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(2)},
        {"a": torch.zeros(2), "b": torch.zeros(2, 1)},
    ],
    ids=["shape", "missing", "name", "more", "dimensions"],
)
def test_tensors_of_another_layout_are_refused(other):
    with pytest.raises(ValueError, match="names and shapes"):
        FlatLayout.of({"a": torch.zeros(2), "b": torch.zeros(2)}).flatten(other)


@pytest.mark.parametrize("shape", [(3,), (5,), (2, 2), ()])
def test_buffer_of_another_size_is_refused(shape):
    with pytest.raises(ValueError, match="expected a buffer of 4 numbers"):
        FlatLayout.of({"a": torch.zeros(4)}).unflatten(np.zeros(shape, np.float32))


def test_no_tensors():
    layout = FlatLayout.of({})
    assert layout.flatten({}).shape == (0,)
    assert layout.unflatten(np.zeros(0, np.float32)) == {}


def test_checksum():
    flat = np.array([1.0, -0.0], dtype="<f4")
    assert checksum(flat) == hashlib.sha256(bytes.fromhex("0000803f00000080")).hexdigest()
    assert checksum(flat) != checksum(np.abs(flat))
    assert checksum(np.arange(6, dtype=np.float32)[::2]) == checksum(np.array([0, 2, 4], dtype=np.float32))
