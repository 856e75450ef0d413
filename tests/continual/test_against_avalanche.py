"""Avalanche's runs on scikit-learn's digits: the same R matrices, and the same parameters."""

import numpy as np
import pytest

from metacl.continual.metrics import metrics
from tests.continual.digits import ORACLE, digits_loop, oracle, run

EXACT = {
    "naive": [],
    "ewc lam=100": [{"name": "ewc", "strength": 100, "fisher": "batched"}],
    "ewc lam=1000": [{"name": "ewc", "strength": 1000, "fisher": "batched"}],
    "ewc-online g=1 lam=100": [{"name": "ewc", "strength": 100, "fisher": "batched", "mode": "online"}],
    "lwf a=5 T=2": [{"name": "lwf", "alpha": 5}],
}
RANDOM = {
    "replay mem=50": {"name": "replay", "memory": 50, "policy": "experience_balanced", "draw": "passes"},
    "der++ mem=200 a=0.1 b=0.5": {"name": "der_plus_plus", "memory": 200, "alpha": 0.1, "beta": 0.5},
    "agem 50/task s=64": {"name": "a_gem", "per_experience": 50, "batch": 64},
}
ACCURACIES = {
    "ACC": "average_accuracy",
    "AIA": "average_incremental_accuracy",
    "LA": "learning_accuracy",
    "BWT": "backward_transfer",
    "FWT": "forward_transfer",
    "F_chaudhry": "forgetting_chaudhry",
    "F_mammoth": "forgetting_mammoth",
    "F_avalanche": "forgetting_avalanche",
}


@pytest.mark.parametrize("kind", ["class", "domain"])
@pytest.mark.parametrize("method", EXACT)
def test_same_matrix_and_same_parameters(kind, method):
    wanted = oracle(kind, method)
    record = run(digits_loop(kind, EXACT[method])).record
    # The file has six digits; one example more or less right is 0.011.
    assert np.allclose(record.rows, wanted["R"], atol=1e-6, rtol=0)
    assert np.allclose(record.baseline, wanted["b"], atol=1e-6, rtol=0)
    assert record.parameter_norm[-1] == pytest.approx(wanted["param_norm"], abs=1e-4)


def accuracy(record):
    return metrics(record.rows, record.baseline, record.random)["average_accuracy"]


@pytest.mark.parametrize("method", RANDOM)
def test_within_three_points_where_draws_differ(method):
    found = [accuracy(run(digits_loop("class", [RANDOM[method]], seed=seed)).record) for seed in range(3)]
    assert np.mean(found) == pytest.approx(oracle("class", method)["ACC"], abs=0.03)


def test_synaptic_intelligence_is_not_fine_tuning():
    # An implementation whose anchor is the parameter itself gives naive's numbers, to the last digit.
    naive = run(digits_loop("domain")).record
    si = run(digits_loop("domain", [{"name": "si", "strength": 1}])).record
    assert si.rows[0] == naive.rows[0] and si.parameter_norm[0] == naive.parameter_norm[0]
    assert abs(si.parameter_norm[-1] - naive.parameter_norm[-1]) > 1e-2
    assert accuracy(si) > accuracy(naive) + 0.01


@pytest.mark.parametrize("row", ORACLE["rows"], ids=lambda row: f"{row['stream']} {row['method']}")
def test_numbers_of_a_matrix(row):
    found = metrics(row["R"], row["b"], row["b"])
    for theirs, ours in ACCURACIES.items():
        assert found[ours] == pytest.approx(row[theirs], abs=2e-6), theirs
