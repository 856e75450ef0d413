"""The count of live tensors, against arithmetic."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from metacl.learners.live_memory import LiveMemory


def test_counts_what_lives_and_the_peak():
    before = torch.zeros(500)
    with LiveMemory() as memory:
        first = torch.zeros(1000)
        second = first + 1
        assert memory.now == 8000
        del first
        view = second.view(10, 100)
        before.add_(1)
        del second
        assert (memory.now, memory.peak) == (4000, 8000)
        del view
    assert (memory.now, memory.peak) == (0, 8000)


def test_counts_what_a_graph_keeps_without_computing():
    with FakeTensorMode(), LiveMemory() as memory:
        x = torch.zeros(1000, requires_grad=True)
        y = x.exp().exp()  # both exponentials are saved
        assert memory.now == 3 * 4000
        del y
        assert memory.now == 4000
