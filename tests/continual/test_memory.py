"""Memories keep what they promise to keep."""

from collections import Counter

import numpy as np
import pytest

from metacl.continual.memory import balanced, reservoir
from metacl.tasks.episode import TaskAddress
from metacl.tasks.randomness import AddressedRandom


def random(number):
    return AddressedRandom(TaskAddress("train", 0, 0, number))


class Scripted:
    """Gives the wanted numbers, so that every course of a reservoir can be walked."""

    def __init__(self, numbers):
        self.numbers = list(numbers)

    def below(self, bound):
        number = self.numbers.pop(0)
        assert number < bound
        return number


def test_reservoir_probability_in_closed_form():
    # All courses of 3 places and 6 offers: 4 · 5 · 6 equally likely ones; each example is kept in half of them.
    kept = Counter()
    courses = [(a, b, c) for a in range(4) for b in range(5) for c in range(6)]
    for course in courses:
        kept.update(reservoir([], 0, [(0, i) for i in range(6)], 3, Scripted(course)))
    assert set(kept.values()) == {len(courses) // 2} and len(kept) == 6


def test_reservoir_probability_over_experiences():
    # The same with real numbers, offers in three portions; binomial errors of four standard deviations.
    kept, runs, size, total = Counter(), 4000, 5, 20
    for number in range(runs):
        memory, offered = [], 0
        for k, portion in enumerate((8, 2, 10)):
            memory = reservoir(memory, offered, [(k, i) for i in range(portion)], size, random(3 * number + k))
            offered += portion
        assert len(memory) == len(set(memory)) == size
        kept.update(memory)
    p = size / total
    assert len(kept) == total
    assert np.abs(np.array(list(kept.values())) / runs - p).max() < 4 * (p * (1 - p) / runs) ** 0.5


@pytest.mark.parametrize(("groups", "wanted"), [(1, [20]), (2, [10, 10]), (3, [7, 7, 6])])
def test_balanced_shares(groups, wanted):
    memory = []
    for k in range(groups):
        memory = balanced(memory, [(k, i) for i in range(50)], 20, lambda address: address[0], random(k))
    assert sorted(Counter(k for k, _ in memory).values(), reverse=True) == wanted


def test_what_a_small_group_leaves_is_the_others():
    memory = balanced([], [(0, 0), (0, 1), *[(1, i) for i in range(50)]], 20, lambda a: a[0], random(0))
    assert Counter(k for k, _ in memory) == {0: 2, 1: 18}


def test_more_groups_than_places():
    # Whose turn it is is drawn, so that no experience is kept out for good.
    held = Counter()
    for seed in range(200):
        memory = balanced([], [(k, i) for k in range(6) for i in range(9)], 3, lambda a: a[0], random(seed))
        assert len(memory) == len({k for k, _ in memory}) == 3
        held.update(k for k, _ in memory)
    assert min(held.values()) > 60  # of 100 expected; four standard deviations are 28
