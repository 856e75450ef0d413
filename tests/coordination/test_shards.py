"""Gradients cut by coordinates: the same bits for any cut, and nothing is combined that is not all there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacl.aggregation import AGGREGATORS
from metacl.aggregation.base import CACHED, euclidean_norm
from metacl.config import RunConfig
from metacl.coordination import coordinator
from metacl.coordination.flat import checksum, cuts
from metacl.coordination.gathering import Gathering, GradientsLost, InProcess
from metacl.coordination.shards import Counted, GradientShard, Part
from metacl.coordination.worker import TaskResult
from metacl.errors import ConfigError, ResourceError
from metacl.tasks import TaskAddress
from tests.coordination.test_coordinator import Silent, ToyExecutor, bits, config_of, train
from tests.helpers import tiny_config

BY_COORDINATES = [name for name in AGGREGATORS.names() if AGGREGATORS.get(name).by_coordinates]


def aggregator(name="mean", **options):
    return AGGREGATORS.build({"name": name, **options})


def results(tasks, size, seed=0):
    """By address, every second one of more examples, of sizes far apart: so that another order would be seen."""
    generator = np.random.default_rng(seed)
    found = {}
    for index in range(tasks):
        gradient = (generator.standard_normal(size) * 10.0 ** generator.integers(-6, 7)).astype(np.float32)
        address, examples = TaskAddress("train", 0, 0, index), 1 + 2 * (index % 2)
        found[address] = TaskResult(gradient, (), 0.0, (), examples, euclidean_norm(gradient))
    return found


def counted(found):
    return [Counted(address, result.examples, result.norm) for address, result in sorted(found.items())]


def send(shard, where, found, version="v"):
    """In no order."""
    for address, result in reversed(found.items()):
        numbers = result.gradient[where]
        assert shard.receive(version, Part(address, where.start, numbers, checksum(numbers))) == "sound"


def by_shards(name, portions, ranges):
    whole = np.full(max(where.stop for where in ranges), np.nan, np.float32)
    for where in ranges:
        shard = GradientShard(aggregator(name))
        shard.begin("v")
        for number, found in enumerate(portions):
            send(shard, where, found)
            assert shard.combine(number, counted(found))
        combined = shard.result(len(portions))
        assert checksum(combined.numbers) == combined.checksum
        whole[combined.begin : combined.begin + combined.numbers.size] = combined.numbers
    return whole


def in_process(name, portions):
    gathering = InProcess(aggregator(name))
    for found in portions:
        gathering.combine(found)
    return gathering.result()


def test_what_can_be_cut():
    assert BY_COORDINATES == ["clipped_mean", "coordinate_median", "example_weighted", "mean", "trimmed_mean"]


@pytest.mark.parametrize("name", BY_COORDINATES)
@given(size=st.integers(1, 40), tasks=st.integers(1, 12), shards=st.integers(1, 45), seed=st.integers(0, 99))
def test_bits_do_not_depend_on_the_cut(name, size, tasks, shards, seed):
    portions = [results(tasks, size, seed)]
    assert by_shards(name, portions, cuts(size, shards)).tobytes() == in_process(name, portions).tobytes()


@pytest.mark.parametrize("name", BY_COORDINATES)
def test_nor_where_it_is_uneven_longer_than_a_block_and_there_are_portions(name):
    size = 2 * CACHED + 3
    portions = [results(12, size, 1), results(3, size, 2)]
    uneven = [slice(0, 1), slice(1, CACHED + 7), slice(CACHED + 7, size - 1), slice(size - 1, size)]
    expected = in_process(name, portions)
    assert by_shards(name, portions, uneven).tobytes() == expected.tobytes()
    mean = np.mean([r.gradient for found in portions for r in found.values()], axis=0, dtype=np.float64)
    if name == "mean":
        np.testing.assert_allclose(expected, mean, rtol=1e-6)


@given(size=st.integers(0, 50), shards=st.integers(1, 60))
def test_cuts_cover_everything_once(size, shards):
    ranges = cuts(size, shards)
    assert len(ranges) == shards
    assert [number for where in ranges for number in range(size)[where]] == list(range(size))
    assert max(w.stop - w.start for w in ranges) - min(w.stop - w.start for w in ranges) <= 1


def test_a_part_is_looked_at():
    shard, address = GradientShard(aggregator()), TaskAddress("train", 0, 0, 0)
    shard.begin("v")
    numbers = np.arange(3, dtype=np.float32)
    assert shard.receive("v", Part(address, 0, numbers, checksum(numbers + 1))) == "damaged"
    numbers[1] = np.inf
    assert shard.receive("v", Part(address, 0, numbers, checksum(numbers))) == "not finite"
    assert not shard.combine(0, [Counted(address, 1, None)])


def test_parts_for_other_parameters_are_dropped():
    shard, found = GradientShard(aggregator()), results(2, 5)
    shard.begin("v")
    send(shard, slice(0, 5), found, version="before")
    assert not shard.combine(0, counted(found))


def test_what_a_shard_had_before_it_was_started_again_is_missed():
    found = results(4, 5)
    first, rest = dict(list(found.items())[:2]), dict(list(found.items())[2:])
    shard = GradientShard(aggregator())  # nobody told it that a step began
    send(shard, slice(0, 5), rest)
    assert not shard.combine(0, counted(found))
    assert not shard.combine(0, counted(rest))
    shard.begin("v")
    send(shard, slice(0, 5), first)
    assert shard.combine(0, counted(first))
    assert not shard.combine(0, counted(first))  # portion 0 is there already
    assert shard.result(2) is None


class ToyShards(Gathering):
    """Two shards in this process; what they hold is lost at the times (of `combine`, `result`) told."""

    def __init__(self, lose):
        self.shards, self.lose = [GradientShard(aggregator()) for _ in range(2)], lose
        self.portions = 0
        for shard in self.shards:
            shard.begin("v")

    def combine(self, results):
        for shard, where in zip(self.shards, cuts(4, 2), strict=True):
            send(shard, where, results)
        self.perhaps_lose()
        if not all(shard.combine(self.portions, counted(results)) for shard in self.shards):
            raise GradientsLost("a toy shard")
        self.portions += 1

    def result(self):
        self.perhaps_lose()
        combined = [shard.result(self.portions) for shard in self.shards]
        if None in combined:
            raise GradientsLost("a toy shard")
        return np.concatenate([part.numbers for part in combined])

    def perhaps_lose(self):
        if next(self.lose, False):
            self.shards[1] = GradientShard(aggregator())


class WithShards(ToyExecutor):
    def __init__(self, lose):
        super().__init__(1)
        self.lose = iter(lose)

    def gathering(self, meta):
        return ToyShards(self.lose)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_lost_shard_costs_a_step_and_no_bit(tmp_path, accumulate):
    expected = train(config_of(tmp_path, "straight", accumulate=accumulate), ToyExecutor())
    progress = Silent()
    lose = [*[False] * 5, True, True, *[False] * 3, True]
    found = train(config_of(tmp_path, "lost", accumulate=accumulate), WithShards(lose), progress)
    assert bits(found) == bits(expected)
    assert sum("is computed again: a toy shard" in note for note in progress.notes) == 3


def test_shards_that_do_not_live_end_the_run_with_all_saved(tmp_path):
    config = config_of(tmp_path)
    with pytest.raises(ResourceError, match=r"outer step 2: its gradients were lost 3 times.*same command"):
        train(config, WithShards([False] * 4 + [True] * 9))
    assert coordinator.load_checkpoint(config.folder / "checkpoints" / "step-2")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"workers": {"executor": "local", "gradient_shards": 2}}, "gradient_shards: 2, but the local executor is one"),
        (
            {"workers": {"executor": "ray", "gradient_shards": 2}, "outer": {"aggregator": "pcgrad"}},
            "aggregator 'pcgrad' looks at whole gradients. Set workers.gradient_shards=1, or outer.aggregator=mean",
        ),
        (
            {"workers": {"executor": "ray"}, "faults": [{"kind": "kill_shard", "step": 1}]},
            "kill_shard needs shards. Set workers.gradient_shards=2",
        ),
    ],
)
def test_what_does_not_go_together(tmp_path, changes, part):
    with pytest.raises((ConfigError, ValueError), match=part):
        RunConfig.model_validate(tiny_config(tmp_path, **changes))
