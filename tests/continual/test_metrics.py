"""Numbers of an R matrix against arithmetic by hand; what stands for a random initialization against random draws."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from metacl import api
from metacl.continual.metrics import metrics
from metacl.continual.model import Model, among
from metacl.continual.record import Record
from metacl.continual.results import summary
from tests.continual.digits import digits_loop
from tests.helpers import TinyLearner

R = [[0.9, 0.4, 0.2], [0.7, 0.8, 0.5], [0.6, 0.7, 0.9]]
START, RANDOM = [0.3, 0.3, 0.4], [0.25, 0.2, 0.1]


def test_forward_transfer_is_against_random_initialization_and_against_the_start():
    found = metrics(R, START, RANDOM)
    assert found["forward_transfer"] == pytest.approx(((0.4 - 0.2) + (0.5 - 0.1)) / 2)
    assert found["forward_transfer_from_start"] == pytest.approx(((0.4 - 0.3) + (0.5 - 0.4)) / 2)
    nats = metrics(R, START, RANDOM, higher_is_better=False)
    assert nats["forward_transfer"] == pytest.approx(-((0.4 - 0.2) + (0.5 - 0.1)) / 2)
    of_one = metrics([[0.5]], [0.1], [0.1])
    assert "forward_transfer" not in of_one and of_one["learning_accuracy"] == 0.5


def test_what_is_not_defined_is_null():
    found = metrics(R, START, [0.25, None, 0.1])
    assert found["forward_transfer"] is None and found["forward_transfer_from_start"] is None
    assert found["backward_transfer"] is not None
    told = summary([found, found])
    assert json.loads(json.dumps(told))["forward_transfer"] is None and told["backward_transfer"]["seeds"] == 2


@pytest.mark.parametrize("allowed", [None, [True, False, True, True, False]])
def test_chance_is_the_mean_over_random_heads(allowed):
    model = Model(TinyLearner(), 5)
    labels = [0, 0, 1, 3]
    columns = None if allowed is None else torch.tensor(allowed)
    batch = model.learner.encode([f"text {place}" for place in range(4)], labels)
    generator = torch.Generator().manual_seed(0)
    params, right, draws = model.start(), 0.0, 4000
    for _ in range(draws):
        params["head.weight"] = torch.randn(5, 4, generator=generator)
        params["head.bias"] = torch.randn(5, generator=generator)
        scores = model.outputs(params, batch)
        right += model.measured([(among(scores, columns), batch.targets)])
    assert model.chance(labels, columns) == pytest.approx(right / draws, abs=0.02)


def test_a_module_is_asked_as_it_was_drawn():
    untrained = digits_loop("domain", epochs=0)
    own = untrained.begin().record
    assert own.random == own.baseline
    ones = {name: torch.zeros_like(tensor) for name, tensor in untrained.start.items()}
    elsewhere = digits_loop("domain", epochs=0, start=ones).begin().record
    assert elsewhere.random == own.baseline != elsewhere.baseline


def test_classes_that_may_not_be_answered_leave_no_forward_transfer(config):
    results = api.continual(config(strategies=[], scenario="seen"))
    assert results["seeds"][0]["random"] == (0.5, None, None)
    assert results["metrics"]["forward_transfer"] is None
    results = api.continual(config("all", strategies=[]))
    (run,) = results["seeds"]
    assert run["random"] == pytest.approx([1 / 6] * 3)
    assert run["metrics"]["forward_transfer"] == pytest.approx((run["rows"][0][1] + run["rows"][1][2]) / 2 - 1 / 6)


def test_a_run_from_before_there_was_a_random_baseline_gets_one():
    loop = digits_loop("domain", epochs=1)
    standing = loop.learn(loop.begin())
    tree = json.loads(json.dumps(asdict(standing.record)))
    del tree["random"]
    old = replace(standing, record=Record.from_dict(tree))
    assert loop.extended(old).record.random == standing.record.random
