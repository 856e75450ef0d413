"""Objectives that learn or bind more than adapter and head: stored, read, adapted, saved and loaded with it."""

import pytest
import torch

from metacl import api
from metacl.initialization import load_adapted, load_initialization, read_initialization, write_initialization
from tests.small_runs import save_tiny_bert, small_config

TEXTS, LABELS = ["a card", "a pin", "my card", "my pin"], ["card", "pin", "card", "pin"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("model") / "tiny")


@pytest.mark.parametrize(
    ("objective", "beside"),
    [
        ({"name": "anml"}, {"gate.weight", "gate.bias"}),
        ({"name": "cavia", "size": 2}, {"context_weight."}),
        ({"name": "domain_adversarial", "of": "proto_maml"}, {"domain.weight", "domain.bias"}),
        ({"name": "distilled", "of": {"name": "boil"}}, set()),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_round_trip(model, objective, beside, tmp_path):
    config = small_config(model, tmp_path / "out", objective=objective, episodes__ways=2)
    learner, meta = api.starting_point(config)
    meta = {name: tensor + 0.01 * torch.randn_like(tensor) for name, tensor in meta.items()}
    write_initialization(tmp_path / "init", config, learner, meta, 0, "card")
    stored = read_initialization(tmp_path / "init")
    assert all(torch.equal(stored.meta[name], tensor) for name, tensor in meta.items())
    assert all(any(name.startswith(part) for name in stored.meta) for part in beside)
    adapted = load_initialization(tmp_path / "init").adapt(TEXTS, LABELS, steps=2)
    said = adapted.predict(["where is my card", "pin"])
    adapted.save(tmp_path / "model")
    assert load_adapted(tmp_path / "model").predict(["where is my card", "pin"]) == said
    before = load_initialization(tmp_path / "init").adapt(TEXTS, LABELS, steps=0).predict(["where is my card", "pin"])
    assert said != before, "adapting changes what is predicted"
