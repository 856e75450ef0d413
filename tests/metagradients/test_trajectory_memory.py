"""The block that a walk's parameters are stored in: copies that later steps do not touch."""

import torch

from metacl.metagradients.trajectory_memory import TrajectoryMemory


def step(seed):
    torch.manual_seed(seed)
    leaf = torch.zeros(2, 3, requires_grad=True)
    return leaf, [leaf + torch.randn(2, 3), leaf, leaf.sum() + torch.randn(4)]


def test_every_step_finds_its_own_values_again():
    memory = TrajectoryMemory(3)
    given = [step(seed)[1] for seed in range(3)]
    held = [memory.hold(tensors) for tensors in given]
    for tensors, copies in zip(given, held, strict=True):
        assert all(torch.equal(copy, tensor) for copy, tensor in zip(copies, tensors, strict=True))
    blocks = {copies[place].untyped_storage().data_ptr() for copies in held for place in (0, 2)}
    assert len(blocks) == 1
    assert all(copies[1] is tensors[1] for copies, tensors in zip(held, given, strict=True)), "leaves live on anyway"


def test_autograd_takes_no_step_for_changed_by_the_next():
    memory = TrajectoryMemory(2)
    first = memory.hold(step(0)[1])
    version = first[0]._version
    memory.hold(step(1)[1])
    assert first[0]._version == version


def test_what_does_not_fit_is_held_as_it_is():
    memory = TrajectoryMemory(1)
    _, tensors = step(0)
    assert memory.hold(tensors)[0] is not tensors[0]
    assert memory.hold(tensors)[0] is tensors[0], "more steps than room"
    _, others = step(1)
    memory = TrajectoryMemory(2)
    memory.hold(tensors)
    assert memory.hold(others[:1])[0] is others[0], "another size"
    assert memory.hold([others[0].double(), others[0]])[1] is others[0], "another type"
    turned = others[0].t()
    assert memory.hold([turned])[0] is turned, "other strides"


def test_giving_back_changes_nothing_that_is_held():
    memory = TrajectoryMemory(7)
    _, tensors = step(0)
    held = memory.hold(tensors)
    for _ in range(7):
        memory.before_step_back()
    assert torch.equal(held[0], tensors[0])
