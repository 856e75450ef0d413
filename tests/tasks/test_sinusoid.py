"""Sinusoid tasks: every point lies on one wave of the stated ranges; an address is enough."""

import numpy as np
import pytest

from metacl.tasks import EpisodeShape, Sinusoid, TaskAddress

SHAPE = EpisodeShape(ways=1, shots=10, queries=15)


def episodes(count, split="train"):
    source = Sinusoid().open()
    return [source.episode(TaskAddress(split, 0, 0, index), SHAPE) for index in range(count)]


def test_support_and_query_lie_on_one_wave():
    for episode in episodes(20):
        (x, y), (xq, yq) = episode.support, episode.query
        assert x.shape == y.shape == (10, 1)
        assert xq.shape == yq.shape == (15, 1)
        # A sin(x − φ) = a sin x + b cos x: two numbers explain all points.
        fit, *_ = np.linalg.lstsq(np.hstack([np.sin(x), np.cos(x)]), y, rcond=None)
        np.testing.assert_allclose(np.hstack([np.sin(xq), np.cos(xq)]) @ fit, yq, atol=1e-9)
        amplitude, phase = np.hypot(*fit[:, 0]), np.arctan2(-fit[1, 0], fit[0, 0])
        assert 0.1 <= amplitude < 5.0
        assert 0.0 <= phase < np.pi


def test_ranges_are_filled():
    points = np.concatenate([episode.query[0] for episode in episodes(200)])
    assert np.all((points >= -5) & (points < 5))
    assert points.mean() == pytest.approx(0.0, abs=0.2)
    assert points.std() == pytest.approx(10 / np.sqrt(12), abs=0.1)


def test_the_address_is_enough_and_splits_differ():
    first, again = episodes(2), episodes(2)
    assert all(np.array_equal(a.support[1], b.support[1]) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].support[0], episodes(1, "test")[0].support[0])
    assert not np.array_equal(first[0].support[0], first[1].support[0])
