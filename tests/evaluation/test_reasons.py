"""Reasons in a report are those that `metacl predict --explain` gives for a model adapted to the same texts."""

import pytest

from metacl import api
from metacl.config import config_from_dict
from metacl.evaluation.reasons import worth_explaining
from metacl.initialization import load_initialization, read_initialization, write_initialization
from tests.small_runs import save_tiny_bert, small_config


@pytest.fixture(scope="module")
def init(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reasons")
    config = small_config(save_tiny_bert(folder / "tiny"), folder / "out")
    learner, meta = api.starting_point(config)
    write_initialization(folder / "init", config, learner, meta, 0, "card")
    return folder / "init"


def measured(init, explain=True, **changes):
    stored = read_initialization(init)
    tree = {**stored.config.to_dict(), **changes}
    tree["evaluation"] = {"shape": {"ways": 3, "shots": 2, "queries": 3}, "episodes": 3, "steps": (2,)}
    return api.evaluate(stored, config_from_dict(tree, origin="test"), explain=explain)


def test_they_are_those_of_the_adapted_model(init):
    results = measured(init)
    assert len(results["examples"]) == 2
    for episode in results["examples"]:
        shown = [one for one in episode["query"] if "why" in one]
        assert len(shown) == 3
        texts, labels = zip(*((one["text"], one["true"]) for one in episode["support"]), strict=True)
        model = load_initialization(init).adapt(texts, labels, steps=2)
        for one in shown:
            found = model.explain(one["text"])
            assert found.prediction.label == one["predicted"]
            assert [token for token, _ in one["why"]["tokens"]] == [token for token, _ in found.tokens]
            shares = [share for _, share in one["why"]["tokens"]]
            assert shares == pytest.approx([share for _, share in found.tokens], rel=1e-3, abs=1e-4)
            near = [(like["text"], like["label"]) for like in one["why"]["examples"]]
            assert near == [(like.text, like.label) for like in found.examples]


def test_only_where_they_are_asked_for_and_can_be_had(init, monkeypatch):
    assert not any("why" in one for episode in measured(init, explain=False)["examples"] for one in episode["query"])

    def refused(*_):
        from metacl.errors import ConfigError

        raise ConfigError("scores otherwise")

    monkeypatch.setattr("metacl.initialization.adapt.AdaptedClassifier.explain", refused)
    results = measured(init)
    assert results["examples"] and not any("why" in one for episode in results["examples"] for one in episode["query"])


@pytest.mark.parametrize(
    ("wrong", "places"),
    [
        ([False, True, True, True, False], [0, 1, 2]),
        ([True] * 4, [0, 1]),
        ([False] * 4, [0, 1, 2]),
        ([False, True, False, False], [0, 1, 2]),
        ([], []),
    ],
)
def test_mistakes_come_first_and_a_right_answer_stands_beside_them(wrong, places):
    assert worth_explaining(wrong) == places
