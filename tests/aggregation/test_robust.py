"""Weighted, clipped, median and trimmed: numpy's and scipy's own, and examples by hand."""

import numpy as np
import pytest
import scipy.stats

from metacl.aggregation import AGGREGATORS, ClippedMean, CoordinateMedian, ExampleWeighted, Mean, TrimmedMean, base
from metacl.registry import ConfigError
from tests.aggregation.contributions import contributions, flat, random_gradients


@pytest.mark.parametrize("tasks", [1, 2, 7])
def test_example_weighted_is_numpys_average(tasks):
    gradients, examples = random_gradients(tasks, 50), list(range(3, 3 + tasks))
    combined = ExampleWeighted().combine(contributions(gradients, examples))
    expected = np.average(np.array(gradients, dtype=np.float64), axis=0, weights=examples)
    np.testing.assert_allclose(combined, expected, rtol=1e-13)


def test_example_weighted_by_hand_and_equal_weights():
    assert ExampleWeighted().combine(contributions([flat(1, 0), flat(5, 4)], [3, 1])).tolist() == [2.0, 1.0]
    same = contributions(random_gradients(4, 9), [1] * 4)
    assert ExampleWeighted().combine(same).tolist() == Mean().combine(same).tolist()


def test_weights_in_float64():
    # 2**24 + 1 is no float32: a product in float32 would be rounded before it is added.
    combined = ExampleWeighted().combine(contributions([flat(2**24 - 1), flat(0)], [3, 1]))
    assert combined.tolist() == [3 * (2**24 - 1) / 4]


def test_clipped_by_hand():
    # Norms 5 and 0.5; the first is scaled to norm 1.
    combined = ClippedMean(norm=1.0).combine(contributions([flat(3, 4), flat(0, 0.5)]))
    assert combined == pytest.approx([0.3, (0.8 + 0.5) / 2], rel=1e-15)


def test_clipped_to_the_median_norm():
    gradients = random_gradients(5, 20)
    gradients[2] *= 1e6
    norms = [np.linalg.norm(gradient.astype(np.float64)) for gradient in gradients]
    scaled = [g.astype(np.float64) * min(1, np.median(norms) / n) for g, n in zip(gradients, norms, strict=True)]
    np.testing.assert_allclose(ClippedMean().combine(contributions(gradients)), np.mean(scaled, axis=0), rtol=1e-13)


def test_zero_gradients_can_be_clipped():
    assert ClippedMean().combine(contributions([flat(0, 0), flat(0, 0)])).tolist() == [0, 0]


@pytest.mark.parametrize("tasks", [1, 2, 5, 8])
def test_median_is_numpys(tasks):
    gradients = random_gradients(tasks, 33)
    combined = CoordinateMedian().combine(contributions(gradients))
    assert combined.tolist() == np.median(np.array(gradients, dtype=np.float64), axis=0).tolist()


@pytest.mark.parametrize(("tasks", "fraction"), [(1, 0.4), (5, 0.2), (10, 0.25), (7, 0.0), (4, 0.1)])
def test_trimmed_is_scipys(tasks, fraction):
    gradients = random_gradients(tasks, 33)
    combined = TrimmedMean(fraction=fraction).combine(contributions(gradients))
    np.testing.assert_allclose(
        combined, scipy.stats.trim_mean(np.array(gradients, dtype=np.float64), fraction, axis=0), rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("aggregator", [CoordinateMedian(), TrimmedMean(fraction=0.3)])
def test_more_coordinates_than_a_block(aggregator, monkeypatch):
    gradients = contributions(random_gradients(5, 40))
    whole = aggregator.combine(gradients)
    monkeypatch.setattr(base, "BLOCK", 7)
    assert aggregator.combine(gradients).tolist() == whole.tolist()


@pytest.mark.parametrize("aggregator", [CoordinateMedian(), TrimmedMean(fraction=0.2)])
def test_one_wild_task_of_five_does_not_move_it(aggregator):
    gradients = random_gradients(5, 10)
    gradients[3] = np.full(10, 1e30, np.float32)
    assert np.abs(aggregator.combine(contributions(gradients))).max() < 4
    assert np.abs(Mean().combine(contributions(gradients))).max() > 1e29


@pytest.mark.parametrize("name", AGGREGATORS.names())
def test_every_aggregator_leaves_its_input_alone_and_answers_in_float64(name):
    gradients = random_gradients(4, 6)
    before = [gradient.copy() for gradient in gradients]
    combined = AGGREGATORS.build({"name": name}).combine(contributions(gradients))
    assert combined.dtype == np.float64 and combined.shape == (6,)
    assert all(np.array_equal(g, b) for g, b in zip(gradients, before, strict=True))


@pytest.mark.parametrize("name", AGGREGATORS.names())
def test_every_aggregator_gives_back_what_all_tasks_agree_on(name):
    gradient = random_gradients(1, 6)[0]
    combined = AGGREGATORS.build({"name": name}).combine(contributions([gradient] * 5))
    np.testing.assert_allclose(combined, gradient, rtol=1e-12)


def test_trimming_half_is_refused():
    with pytest.raises(ConfigError, match=r"outer\.aggregator\.fraction"):
        AGGREGATORS.build({"name": "trimmed_mean", "fraction": 0.5})
