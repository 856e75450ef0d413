"""The random stream of an address: held against Philox as published, literal values, and chi-square tests."""

import itertools

import pytest
from scipy.stats import chisquare

from metacl.tasks import TaskAddress
from metacl.tasks.randomness import AddressedRandom

MASK = (1 << 64) - 1


def stream(split="train", seed=0, step=0, index=0):
    return AddressedRandom(TaskAddress(split, seed, step, index))


def philox(counter: list[int], key: list[int]) -> list[int]:
    """One block of Philox 4x64-10, from its definition (Salmon et al. 2011, "Parallel Random Numbers", sec. 3.3)."""
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [
            (second >> 64) ^ counter[1] ^ key[0],
            second & MASK,
            (first >> 64) ^ counter[3] ^ key[1],
            first & MASK,
        ]
        key = [(key[0] + 0x9E3779B97F4A7C15) & MASK, (key[1] + 0xBB67AE8584CAA73B) & MASK]
    return counter


def test_words_are_philox_of_the_address():
    crc32_of_test = 0xD87F7E0C
    drawn = stream("test", seed=7, step=3, index=11)
    words = [drawn.below(1 << 64) for _ in range(8)]
    expected = [philox([block, 0, 3, 11], [7, crc32_of_test]) for block in (1, 2)]
    assert words == expected[0] + expected[1]


def test_golden_values():
    # A change of any of these changes every episode of every published run.
    drawn = stream("train", 0, 0, 0)
    assert [drawn.below(1000) for _ in range(8)] == [749, 736, 760, 954, 103, 798, 388, 815]
    drawn = stream("test", 7, 3, 11)
    assert drawn.below(1 << 64) == 5514825811787085290
    assert stream("test", 7, 3, 11).sample("abcdefgh", 5) == GOLDEN_SAMPLE


GOLDEN_SAMPLE = ["c", "a", "b", "g", "d"]


@pytest.mark.parametrize("bound", [2, 7, 10])
def test_below_is_uniform(bound):
    drawn = stream(seed=bound)
    counts = [0] * bound
    for _ in range(500 * bound):
        counts[drawn.below(bound)] += 1
    assert chisquare(counts).pvalue > 0.001


def test_below_has_no_modulo_bias():
    # Words modulo 3·2^62 would fall below 2^62 every second time instead of every third.
    drawn = stream(seed=5)
    low = sum(drawn.below(3 << 62) < 1 << 62 for _ in range(3000))
    assert chisquare([low, 3000 - low], [1000, 2000]).pvalue > 0.001


def test_uniform_numbers_are_the_words_of_below_scaled():
    drawn, words = stream(seed=4), stream(seed=4)
    numbers = [drawn.uniform(-5.0, 5.0), *drawn.uniforms(-5.0, 5.0, 9), drawn.uniform(-5.0, 5.0)]
    assert numbers == [-5.0 + 10.0 * words.below(1 << 53) / (1 << 53) for _ in range(11)]


def test_below_one_is_zero():
    assert [stream(seed=seed).below(1) for seed in range(5)] == [0] * 5


def test_sample_is_uniform_over_orders():
    counts = dict.fromkeys(itertools.permutations("abcd", 3), 0)
    for index in range(2400):
        counts[tuple(stream(index=index).sample("abcd", 3))] += 1
    assert chisquare(list(counts.values())).pvalue > 0.001


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_sample_gives_distinct_items_and_leaves_its_input_alone(count):
    items = list(range(20))
    for index in range(50):
        drawn = stream(index=index).sample(items, count)
        assert len(drawn) == len(set(drawn)) == count
        assert set(drawn) <= set(items)
    assert items == list(range(20))


def test_neighbouring_addresses_have_different_streams():
    addresses = [
        TaskAddress(split, seed, step, index)
        for split, seed, step, index in itertools.product(("train", "valid", "test"), range(3), range(3), range(3))
    ]
    first_words = {AddressedRandom(address).below(1 << 64) for address in addresses}
    assert len(first_words) == len(addresses)


def test_streams_of_neighbouring_addresses_do_not_overlap():
    # Index and step sit above the counter that a stream runs through.
    streams = [stream(index=index, step=step) for index in range(3) for step in range(3)]
    words = [drawn.below(1 << 64) for drawn in streams for _ in range(300)]
    assert len(set(words)) == len(words)


def test_largest_seed_and_step_are_accepted():
    assert stream(seed=2**63 - 1, step=2**40, index=2**40).below(10) in range(10)
