"""Linear regression tasks: one weight vector a task, the stated prior, and the start that meta-learning must find."""

import numpy as np
import pytest
import torch
from scipy import stats

import metacl
from metacl.config import config_from_dict
from metacl.initialization import read_initialization
from metacl.tasks import EpisodeShape, LinearRegression, TaskAddress
from metacl.tasks.randomness import AddressedRandom


def episodes(count, shots, queries, split="train", **options):
    source = LinearRegression(**options).open()
    shape = EpisodeShape(ways=1, shots=shots, queries=queries)
    return [source.episode(TaskAddress(split, 0, 0, index), shape) for index in range(count)]


def test_normal_numbers_are_normal():
    drawn = AddressedRandom(TaskAddress("train", 4, 0, 0)).normals(20_000)
    assert stats.kstest(drawn, "norm").pvalue > 0.001
    pairs = np.stack([AddressedRandom(TaskAddress("train", 5, step, 0)).normals(2) for step in range(4000)])
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 4 / np.sqrt(4000)


def test_without_noise_the_support_tells_the_query():
    found = []
    for episode in episodes(300, 6, 3, inputs=4, mean=2.0, spread=0.5, noise=0.0):
        (x, y), (xq, yq) = episode.support, episode.query
        assert x.shape == (6, 4) and y.shape == (6, 1) and xq.shape == (3, 4) and yq.shape == (3, 1)
        weights, *_ = np.linalg.lstsq(x, y, rcond=None)
        np.testing.assert_allclose(xq @ weights, yq, atol=1e-9)
        found.append(weights[:, 0])
    assert stats.kstest((np.concatenate(found) - 2.0) / 0.5, "norm").pvalue > 0.001


def test_ridge_around_the_prior_errs_as_much_as_theory_says():
    """Given the support w is N(·, noise² A⁻¹), A = XᵀX + λI: queries err by noise² (1 + tr A⁻¹) on average, squared."""
    noise, spread, errors, expected = 0.5, 1.0, [], []
    for episode in episodes(1500, 3, 4, inputs=5, mean=1.0, spread=spread, noise=noise):
        (x, y), (xq, yq) = episode.support, episode.query
        inverse = np.linalg.inv(x.T @ x + (noise / spread) ** 2 * np.eye(5))
        weights = 1.0 + inverse @ x.T @ (y - x @ np.ones((5, 1)))
        errors.append(np.mean((xq @ weights - yq) ** 2))
        expected.append(noise**2 * (1 + np.trace(inverse)))
    difference = np.array(errors) - expected
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(difference))


def test_splits_and_addresses_differ_and_are_enough():
    first, again = episodes(2, 3, 3), episodes(2, 3, 3)
    assert all(np.array_equal(a.query[1], b.query[1]) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].support[0], episodes(1, 3, 3, split="test")[0].support[0])


def test_maml_finds_the_mean_of_the_prior(tmp_path):
    tree = {
        "name": "linear",
        "output": str(tmp_path / "run"),
        "learner": {"name": "mlp", "inputs": 2, "hidden": []},
        "data": {"name": "linear_regression", "inputs": 2, "mean": 2.0, "spread": 0.2, "noise": 0.1},
        "episodes": {"ways": 1, "shots": 5, "queries": 10},
        "objective": "maml",
        "inner": {"steps": 1, "step_size": {"value": 0.1, "head": 0.1, "learn": "none"}},
        "outer": {"steps": 120, "tasks_per_step": 4, "learning_rate": 0.1, "schedule": "cosine"},
        "workers": {"executor": "local"},
    }
    run = metacl.train(config_from_dict(tree))
    meta = read_initialization(run.initialization).meta
    torch.testing.assert_close(meta["head.weight"], torch.full((1, 2), 2.0), rtol=0, atol=0.1)
    assert float(meta["head.bias"]) == pytest.approx(0.0, abs=0.1)
