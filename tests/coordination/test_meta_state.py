"""Meta-parameters in parts against the same ones whole, in one process, with gradients made by hand."""

import numpy as np
import pytest
import torch

from metacl.config import config_from_dict
from metacl.coordination.checkpoint import load_checkpoint, save_checkpoint
from metacl.coordination.flat import FlatLayout
from metacl.coordination.gathering import GradientsLost, InProcess
from metacl.coordination.meta_state import MetaPart, PartedState, WholeState, norm_of
from metacl.coordination.shards import Counted, Part
from metacl.coordination.worker import PartedGradient, TaskResult, checksums
from metacl.errors import TrainingError
from metacl.learners.partition import Partition, part_of
from metacl.learners.ranks import RankGroup
from metacl.tasks import TaskAddress
from tests.small_runs import small_tree

RANKS = 2
SHAPES = {"model.a": (3, 5), "model.b": (4,), "head.bias": (3,), "step_size.model.a": ()}
PARTED = {name: torch.Size(shape) for name, shape in SHAPES.items() if name.startswith("model.")}
OUTER = {"optimizer": "adamw", "learning_rate": 0.1, "aggregator": "clipped_mean", "clip_norm": 0.3}


def drawn(seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def own(params, rank):
    return {n: part_of(t, RankGroup(rank, RANKS)) if n in PARTED else t for n, t in params.items()}


class Here:
    """Parts in this process, and an executor whose ranks start with parts of `initial`."""

    def __init__(self, config, initial):
        self.initial = initial
        self.held = [MetaPart(config.outer, rank == 0) for rank in range(RANKS)]
        self.parts = self

    def initial_parts(self):
        return [FlatLayout.of(p).flatten(p) for p in (own(self.initial, rank) for rank in range(RANKS))]

    def take_initial(self, layout, initial):
        for part, flat in zip(self.held, initial, strict=True):
            part.start(layout, flat)

    def ask(self, method, *arguments):
        return [self.ask_one(number, method, *arguments) for number in range(RANKS)]

    def ask_one(self, number, method, *arguments):
        part = self.held[number]
        if method == "broadcast":
            return part.parameters().version, part.parameters().flat
        return getattr(part, method)(*arguments)

    def gradient(self, portions):
        """What the parts make of portions of tasks' gradients."""
        for part in self.held:
            part.gradients.begin("")
        for portion, tasks in enumerate(portions):
            for rank, part in enumerate(self.held):
                for address, gradient in tasks.items():
                    mine = own(gradient, rank)
                    flat = FlatLayout.of(mine).flatten(mine)
                    assert part.gradients.receive("", Part(address, 0, flat, checksums(flat, 1)[0])) == "sound"
                assert part.gradients.combine(portion, [Counted(a, 1, norm(g)) for a, g in sorted(tasks.items())])
        return PartedGradient(norm_of(self.ask("square_sum", len(portions))))


def norm(params):
    return Partition().norm(params.items())


def tasks(step):
    return [
        {TaskAddress("train", 0, step, 2 * portion + i): drawn(10 * step + 2 * portion + i, 3.0**i) for i in range(2)}
        for portion in range(2)
    ]


def whole_gradient(config, portions):
    gathering = InProcess(config.outer.aggregator)
    for portion in portions:
        flats = {address: FlatLayout.of(g).flatten(g) for address, g in portion.items()}
        gathering.combine({a: TaskResult(flat, (), 0.0, (), norm=norm(portion[a])) for a, flat in flats.items()})
    return gathering.result()


@pytest.fixture
def config(tmp_path):
    workers = {"executor": "ray", "ranks_per_group": 2}
    return config_from_dict(small_tree("model", tmp_path, outer=OUTER, workers=workers))


def parted(config, executor, start=True):
    return PartedState(config, own(executor.initial, 0), Partition(RankGroup(0, RANKS), PARTED), executor, start)


def test_clipping_adam_and_norms_are_those_of_the_whole(config):
    whole, executor = WholeState(config.outer, drawn(1)), Here(config, drawn(1))
    state = parted(config, executor)
    for step in range(3):
        expected = whole.move(whole_gradient(config, tasks(step)), step)
        assert state.move(executor.gradient(tasks(step)), step) == pytest.approx(expected, rel=1e-6)
        found = state.meta
        assert list(found) == sorted(SHAPES) and len(found) == len(SHAPES)
        for name, tensor in whole.meta.items():
            assert found[name].shape == tensor.shape
            assert torch.allclose(found[name], tensor, rtol=1e-6, atol=1e-7)
    # What every rank has whole is the same bits in every part, and padding is nothing.
    first, second = executor.ask("numbers", "head.bias")
    assert torch.equal(first, second)
    assert executor.ask("numbers", "model.a")[1][-1] == 0.0


def test_a_checkpoint_is_a_file_a_part_and_continues_bit_for_bit(config, tmp_path):
    executor = Here(config, drawn(1))
    state = parted(config, executor)
    state.move(executor.gradient(tasks(0)), 0)
    path = save_checkpoint(tmp_path / "c", state.checkpoint(1, {}), keep=1)
    files = {f"{kind}-{part}.safetensors" for kind in ("meta_params", "outer_state") for part in range(2)}
    assert {file.name for file in path.iterdir()} == files | {"state.json", "manifest.json"}
    state.move(executor.gradient(tasks(1)), 1)
    other = Here(config, drawn(2))
    again = parted(config, other, start=False)
    again.restore(load_checkpoint(path))
    again.move(other.gradient(tasks(1)), 1)
    assert all(torch.equal(state.meta[name], again.meta[name]) for name in SHAPES)
    assert again.broadcast() is again.broadcast() and len(again.broadcast().references) == RANKS
    (path / "outer_state-1.safetensors").unlink()
    with pytest.raises(TrainingError, match="not a complete checkpoint"):
        load_checkpoint(path)


def test_what_is_not_finite_or_lost_is_said(config):
    executor = Here(config, drawn(1))
    state = parted(config, executor)
    with torch.no_grad():
        executor.held[1].numbers("model.a")[0] = np.inf  # in one of the parts
    with pytest.raises(TrainingError, match="outer step 4: the meta-parameters are not finite"):
        state.move(executor.gradient(tasks(0)), 4)
    executor.held[1].gradients.begin("")  # as after a restart
    with pytest.raises(GradientsLost):
        norm_of(executor.ask("square_sum", 1))
