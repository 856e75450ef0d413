"""The mean over tasks: literal arithmetic, and sums that float32 gets wrong."""

import numpy as np

from metacl.aggregation import AGGREGATORS, Mean
from tests.aggregation.contributions import contributions, flat


def mean_of(gradients):
    return Mean().combine(contributions(gradients))


def test_literal_mean():
    combined = mean_of([flat(1, -2), flat(2, 0), flat(6, 8)])
    assert combined.dtype == np.float64
    assert combined.tolist() == [3.0, 2.0]


def test_one_task_is_its_own_mean():
    assert mean_of([flat(0.1, 3)]).tolist() == flat(0.1, 3).tolist()


def test_sums_in_float64():
    # In float32, 2**24 + 1 is 2**24, so 1 would never be added.
    gradients = [flat(2**24), *[flat(1)] * 3]
    assert np.float32(2**24) + np.float32(1) == np.float32(2**24)
    assert mean_of(gradients).tolist() == [(2**24 + 3) / 4]


def test_sums_in_the_order_given():
    # Floating-point sums depend on their order; the caller hands in address order.
    large, small = flat(1e30), flat(1)
    assert mean_of([large, -large, small]).tolist() == [1 / 3]
    assert mean_of([large, small, -large]).tolist() == [0.0]


def test_leaves_its_input_alone():
    gradients = [flat(1, 2), flat(3, 4)]
    mean_of(gradients)
    assert [gradient.tolist() for gradient in gradients] == [[1, 2], [3, 4]]


def test_name():
    assert AGGREGATORS.build({"name": "mean"}) == Mean()
