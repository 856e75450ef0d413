"""Intervals against scipy's t tests, hand arithmetic, and the coverage they promise."""

import numpy as np
import pytest
from scipy import stats

from metacl.evaluation import bootstrap_interval, mean_interval, paired_difference, spread


def sample(size, seed=0):
    return np.random.default_rng(seed).beta(5, 2, size)


@pytest.mark.parametrize("size", [2, 3, 30, 600])
def test_mean_interval_is_that_of_the_t_test(size):
    values = sample(size)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = mean_interval(list(values))
    assert found.mean == pytest.approx(values.mean(), rel=1e-14)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_by_hand():
    # Mean 2, standard deviation 1, t of 2 degrees of freedom at 97.5 %: 4.302653 (any table).
    found = mean_interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.high - 2.0 == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert 2.0 - found.low == pytest.approx(found.high - 2.0)


def test_equal_values_have_no_width():
    assert mean_interval([0.5, 0.5, 0.5]).low == mean_interval([0.5, 0.5, 0.5]).high == 0.5


@pytest.mark.parametrize("values", [[], [1.0]])
def test_too_few_values(values):
    with pytest.raises(ValueError, match="at least two"):
        mean_interval(values)


def test_paired_difference_is_that_of_the_paired_t_test():
    first, second = sample(50, 1), 0.8 * sample(50, 1) + 0.1 * sample(50, 2)
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    found = paired_difference(list(first), list(second))
    assert found.mean == pytest.approx((first - second).mean(), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert found.p_value == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-9)


def test_equal_differences():
    assert paired_difference([0.5, 0.7], [0.5, 0.7]).p_value == 1
    assert paired_difference([1.0, 1.5], [0.5, 1.0]).p_value == 0


def test_pairing_takes_the_episodes_difficulty_out():
    difficulty = sample(40)
    first = difficulty + 0.01 + 0.001 * sample(40, 1)
    paired = paired_difference(list(first), list(difficulty))
    assert paired.low > 0
    assert mean_interval(list(first)).low < mean_interval(list(difficulty)).high  # unpaired they overlap


def test_paired_values_must_be_of_the_same_episodes():
    with pytest.raises(ValueError, match="got 2 and 3"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])


def test_interval_covers_the_truth_19_times_in_20():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (2000, 8))
    estimates = [mean_interval(row) for row in draws]
    covered = np.mean([estimate.low <= 3.0 <= estimate.high for estimate in estimates])
    assert 0.93 < covered < 0.97


def test_p_values_of_equal_methods_are_uniform():
    """One of twenty true null hypotheses has p < 0.05, one of ten p < 0.1, …"""
    draws = np.random.default_rng(3).normal(0.0, 1.0, (4000, 2, 12))
    found = [paired_difference(list(a), list(b)).p_value for a, b in draws]
    assert stats.kstest(found, "uniform").pvalue > 0.01


@pytest.mark.parametrize("interval", [mean_interval, lambda values: bootstrap_interval(values, resamples=1999)])
def test_intervals_of_accuracies_cover_the_truth(interval):
    """As they come from episodes: 75 answers, of which an episode's own difficulty decides how many are right."""
    random = np.random.default_rng(4)
    covered = []
    for _ in range(400):
        accuracies = random.binomial(75, random.beta(8, 2, 60)) / 75
        estimate = interval(list(accuracies))
        covered.append(estimate.low <= 0.8 <= estimate.high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_bootstrap_by_scipy_and_the_same_again(monkeypatch):
    values = sample(40)
    found = bootstrap_interval(list(values), seed=7)
    expected = stats.bootstrap((values,), np.mean, n_resamples=9999, rng=np.random.default_rng(7)).confidence_interval
    assert (found.low, found.high) == (expected.low, expected.high)
    monkeypatch.setattr("metacl.evaluation.statistics.NUMBERS_AT_ONCE", 1000)
    assert bootstrap_interval(list(values), seed=7) == found
    assert bootstrap_interval([0.5, 0.5, 0.5]).high == 0.5
    with pytest.raises(ValueError, match="at least two"):
        bootstrap_interval([0.5])


def test_spread_is_the_standard_deviation():
    assert spread([1.0, 2.0, 3.0]) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least two"):
        spread([1.0])
