"""PCGrad: two tasks by hand, more against the paper's algorithm written out in plain Python."""

import numpy as np
import pytest

from metacl.aggregation import Mean, PCGrad
from metacl.tasks.randomness import AddressedRandom
from tests.aggregation.contributions import contributions, flat, random_gradients


def test_two_conflicting_tasks_by_hand():
    # (1, 0)·(-1, 1) = -1: the first loses -1/2 of the second, the second loses -1 of the first.
    combined = PCGrad().combine(contributions([flat(1, 0), flat(-1, 1)]))
    assert combined.tolist() == [((1 - 0.5) + (-1 + 1)) / 2, ((0 + 0.5) + 1) / 2]


def test_tasks_that_agree_keep_their_mean():
    agreeing = contributions([flat(1, 2, 0), flat(2, 1, 1), flat(0, 1, 3)])
    assert PCGrad().combine(agreeing).tolist() == Mean().combine(agreeing).tolist()


def test_opposite_tasks_cancel():
    assert PCGrad().combine(contributions([flat(1, 2), flat(-1, -2)])) == pytest.approx([0, 0], abs=1e-15)


def algorithm_1(vectors, orders):
    """The paper's lines, with the orders given and a mean for its sum."""
    projected = []
    for i, vector in enumerate(vectors):
        left = [float(x) for x in vector]
        for j in orders[i]:
            product = sum(a * float(b) for a, b in zip(left, vectors[j], strict=True))
            if product < 0:
                size = sum(float(b) ** 2 for b in vectors[j])
                left = [a - product / size * float(b) for a, b in zip(left, vectors[j], strict=True)]
        projected.append(left)
    return [sum(numbers) / len(vectors) for numbers in zip(*projected, strict=True)]


def test_many_tasks_against_the_algorithm_as_printed():
    given = contributions(random_gradients(6, 4))
    orders = [
        AddressedRandom(c.address).sample([j for j in range(6) if j != i], 5) for i, c in enumerate(given)
    ]
    assert len({tuple(order) for order in orders}) > 1  # each task has an order of its own
    expected = algorithm_1([c.gradient for c in given], orders)
    np.testing.assert_allclose(PCGrad().combine(given), expected, rtol=1e-12)
    in_turn = algorithm_1([c.gradient for c in given], [[j for j in range(6) if j != i] for i in range(6)])
    assert not np.allclose(in_turn, expected)  # the order matters, so it must not depend on anything but the address


def test_no_task_is_harmed_where_there_are_two():
    for seed in range(20):
        first, second = random_gradients(2, 5, seed)
        combined = PCGrad().combine(contributions([first, second]))
        assert combined @ first >= -1e-9 and combined @ second >= -1e-9
