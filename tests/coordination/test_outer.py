"""The outer optimizer: torch's steps, its factors by hand, and continuing bit for bit from a saved state."""

import math

import pytest
import torch

from metacl.config import OuterLoop
from metacl.coordination.outer import OuterOptimizer, schedule_factor

INITIAL = {"adapter.w": torch.tensor([1.0, -2.0, 0.5]), "step_size.adapter.w": torch.tensor(0.1)}


def gradient_of(step):
    generator = torch.Generator().manual_seed(step)
    return {name: torch.randn(tensor.shape, generator=generator) for name, tensor in INITIAL.items()}


def outer(**options):
    return OuterOptimizer(OuterLoop(**options), INITIAL)


@pytest.mark.parametrize(
    ("kind", "torch_kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_steps_are_torchs_in_two_groups(kind, torch_kind):
    mine = outer(optimizer=kind, learning_rate=0.1, step_size_learning_rate=0.01, weight_decay=0.3)
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in INITIAL.items()}
    theirs = torch_kind(
        [
            {"params": [leaves["adapter.w"]], "lr": 0.1, "weight_decay": 0.3},
            {"params": [leaves["step_size.adapter.w"]], "lr": 0.01, "weight_decay": 0.0},
        ]
    )
    for step in range(4):
        mine.step(gradient_of(step), step)
        for name, leaf in leaves.items():
            leaf.grad = gradient_of(step)[name]
        theirs.step()
        for name, leaf in leaves.items():  # torch's fused kernels, which are meant, round differently
            torch.testing.assert_close(mine.meta[name], leaf, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_strides_do_not_matter(kind):
    laid_out, gradient = torch.randn(3, 4), torch.randn(3, 4)
    options = {"optimizer": kind, "learning_rate": 0.1}
    rows, columns = (OuterOptimizer(OuterLoop(**options), {"w": w}) for w in (laid_out, laid_out.T.contiguous().T))
    for step in range(3):
        rows.step({"w": gradient}, step)
        columns.step({"w": gradient}, step)
    assert torch.equal(rows.meta["w"], columns.meta["w"])
    assert all(tensor.is_contiguous() for tensor in columns.state().values())


def test_the_given_tensors_stay_as_they_are():
    before = {name: tensor.clone() for name, tensor in INITIAL.items()}
    outer().step(gradient_of(0), 0)
    assert all(torch.equal(INITIAL[name], before[name]) for name in INITIAL)


def test_without_step_sizes():
    mine = OuterOptimizer(OuterLoop(optimizer="sgd", learning_rate=0.5), {"a": torch.tensor([1.0])})
    mine.step({"a": torch.tensor([4.0])}, 0)
    assert mine.meta["a"].tolist() == [-1.0]


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_saved_and_restored_goes_on_bit_for_bit(kind):
    options = {"optimizer": kind, "steps": 9, "schedule": "cosine", "warmup_steps": 2, "weight_decay": 0.1}
    straight = outer(**options)
    for step in range(9):
        straight.step(gradient_of(step), step)

    first = outer(**options)
    for step in range(4):
        first.step(gradient_of(step), step)
    meta = {name: tensor.detach().clone() for name, tensor in first.meta.items()}
    state = first.state()
    first.step(gradient_of(99), 4)  # what is saved does not follow
    second = outer(**options)
    second.restore(meta, state)
    for step in range(4, 9):
        second.step(gradient_of(step), step)
    assert all(torch.equal(second.meta[name], straight.meta[name]) for name in INITIAL)


def test_what_was_restored_from_stays_as_it_is():
    first = outer()
    first.step(gradient_of(0), 0)
    meta = {name: tensor.detach().clone() for name, tensor in first.meta.items()}
    state = first.state()
    second = outer()
    second.restore(meta, state)
    second.step(gradient_of(1), 1)
    assert all(torch.equal(meta[name], first.meta[name]) for name in INITIAL)
    assert all(torch.equal(state[name], tensor) for name, tensor in first.state().items())


def test_state_is_named_by_slot_and_tensor():
    mine = outer(optimizer="adamw")
    assert mine.state() == {}
    mine.step(gradient_of(0), 0)
    assert set(mine.state()) == {f"{slot}/{name}" for slot in ("step", "exp_avg", "exp_avg_sq") for name in INITIAL}
    assert mine.state()["step/adapter.w"].item() == 1.0


GRADIENT = {"adapter.w": torch.tensor([3.0, 0.0, 0.0]), "step_size.adapter.w": torch.tensor(4.0)}  # norm 5


@pytest.mark.parametrize(("limit", "scale"), [(None, 1.0), (10.0, 1.0), (5.0, 1.0), (2.5, 0.5)])
def test_clipping_scales_all_together(limit, scale):
    mine = outer(optimizer="sgd", learning_rate=1.0, step_size_learning_rate=1.0, clip_norm=limit)
    assert mine.step(GRADIENT, 0) == 5.0  # before clipping
    assert mine.meta["adapter.w"].tolist() == [1.0 - 3.0 * scale, -2.0, 0.5]
    assert mine.meta["step_size.adapter.w"].item() == pytest.approx(0.1 - 4.0 * scale)
    assert GRADIENT["adapter.w"].tolist() == [3.0, 0.0, 0.0]


def test_factor_reaches_both_groups():
    mine = outer(optimizer="sgd", learning_rate=1.0, step_size_learning_rate=0.5, warmup_steps=4)
    mine.step(GRADIENT, 0)
    assert mine.meta["adapter.w"][0].item() == 1.0 - 0.25 * 3.0
    assert mine.meta["step_size.adapter.w"].item() == pytest.approx(0.1 - 0.25 * 0.5 * 4.0)


def test_warm_up_then_constant():
    loop = OuterLoop(steps=6, warmup_steps=4)
    assert [schedule_factor(loop, step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert schedule_factor(OuterLoop(), 0) == 1.0


def test_warm_up_then_cosine():
    loop = OuterLoop(steps=6, warmup_steps=2, schedule="cosine")
    half_root = math.sqrt(0.5)
    expected = [0.5, 1.0, 1.0, (1 + half_root) / 2, 0.5, (1 - half_root) / 2, 0.0]
    assert [schedule_factor(loop, step) for step in range(7)] == pytest.approx(expected, abs=1e-15)


def test_warm_up_then_linear():
    loop = OuterLoop(steps=6, warmup_steps=2, schedule="linear")
    assert [schedule_factor(loop, step) for step in range(7)] == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]


def test_warm_up_longer_than_the_run():
    loop = OuterLoop(steps=2, warmup_steps=10, schedule="cosine")
    assert [schedule_factor(loop, step) for step in range(2)] == [0.1, 0.2]
