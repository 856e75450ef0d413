"""The probe set, against scikit-learn's nearest centroid and plain transformers; and that every run has it."""

import json

import pytest
import torch
from safetensors.torch import load_file
from sklearn.neighbors import NearestCentroid
from transformers import AutoModelForCausalLM, AutoTokenizer

from metacl import api
from metacl.continual import run as module
from metacl.continual.config import continual_config_from_dict
from metacl.continual.probe import ProbeConfig
from metacl.continual.worker import ContinualWorker, make_loop
from metacl.errors import ConfigError, DataError
from tests.continual.test_course import AnyOrder
from tests.continual.test_run import timeless
from tests.small_models import save_family


@pytest.fixture
def labelled(tmp_path):
    """Three classes of enough texts, and one of too few."""
    rows = [f"{'xyz'[c]} kind number {'abcdefghij'[i]} {'mnopq'[i % 5]},kind {c}" for c in range(3) for i in range(9)]
    (tmp_path / "probe.csv").write_text("text,label\n" + "\n".join([*rows, "one alone,few"]) + "\n")
    return {"data": {"name": "labelled_text", "path": str(tmp_path / "probe.csv")}, "shots": 3, "size": 12}


def test_the_same_texts_every_time_and_none_twice(labelled):
    probe = ProbeConfig(**labelled)
    drawn = probe.open()
    assert drawn == probe.open()
    assert len(drawn.support) == 3 * 3 and drawn.support.labels == (0,) * 3 + (1,) * 3 + (2,) * 3
    assert sorted(drawn.asked.labels) == [0] * 4 + [1] * 4 + [2] * 4
    assert not {*drawn.support.inputs} & {*drawn.asked.inputs}
    with pytest.raises(DataError, match=r"0 of its 4 classes have more than 9 texts.*Lower probe\.shots"):
        ProbeConfig(**{**labelled, "shots": 9}).open()


def test_a_classifier_is_asked_for_its_nearest_means(config, labelled):
    learner = {**config().learner.to_dict(), "adapter": None}
    training = {"epochs": 3, "batch_size": 6, "learning_rate": 0.5, "head": "class_means"}
    made = config(strategies=[], probe=labelled, training=training, learner=learner)
    loop = make_loop(made, 0, made.stream.open(0), made.learner.build(0))
    begun = loop.begin()
    end = loop.learn(begun)
    drawn, learner = made.probe.open(), loop.model.learner

    def answers(params):
        with torch.no_grad():
            support, asked = (
                learner.features(params, learner.encode(part.inputs, part.labels)).double().numpy()
                for part in (drawn.support, drawn.asked)
            )
        nearest = NearestCentroid().fit(support, drawn.support.labels)
        squares = ((asked[:, None] - nearest.centroids_[None]) ** 2).sum(-1)
        return (nearest.predict(asked) == drawn.asked.labels).mean(), torch.tensor(-squares).softmax(-1)

    (before, first), (after, now) = answers(begun.params), answers(end.params)
    assert end.record.probe_baseline == pytest.approx(before) and end.record.probe == (pytest.approx(after),)
    assert end.record.probe_kl[0] == pytest.approx(float((first * (first / now).log()).sum(-1).mean()), rel=1e-2)
    assert end.record.probe_kl[0] > 1e-4


def test_in_any_order_of_workers_and_after_a_stop(config, labelled, tmp_path, monkeypatch):
    options = {"strategies": [], "probe": labelled, "experiences": 2}
    (run,) = api.continual(config("one", **options))["seeds"]
    assert len(run["probe"]) == len(run["probe_kl"]) == 2
    assert run["metrics"]["general_ability_change"] == run["probe"][-1] - run["probe_baseline"]
    assert "probe set" in (tmp_path / "one/mean.svg").read_text()
    api.continual(config("longer", **{**options, "experiences": 1}))
    api.continual(config("longer", **options))
    longer = json.loads((tmp_path / "longer/results.json").read_text())["seeds"][0]
    assert longer["probe_baseline"] == run["probe_baseline"] and len(longer["probe"]) == 2
    monkeypatch.setattr(module, "_pool", lambda config, notify: AnyOrder(config, notify, ContinualWorker))
    api.continual(config("any", workers={"groups": 3}, **options))
    assert timeless(tmp_path / "any") == timeless(tmp_path / "one")


def test_a_language_model_is_asked_for_its_nats(tmp_path):
    data = tmp_path / "texts"
    data.mkdir()
    for name in ("law", "sea", "probe"):
        texts = [f"{name} text number {'abcdefghij'[i]} of the {name}" for i in range(8)]
        place = tmp_path / "probe.txt" if name == "probe" else data / f"{name}.txt"
        place.write_text("\n\u241e\n".join(texts))
    model = save_family("llama", tmp_path / "model", causal=True)
    tree = {
        "name": "language",
        "output": str(tmp_path / "run"),
        "learner": {"name": "causal_lm", "model": str(model), "adapter": None, "max_length": 64},
        "stream": {
            "name": "text_domains",
            "data": {"name": "domain_text", "path": str(data), "split_by": "example"},
        },
        "probe": {"data": {"name": "domain_text", "path": str(tmp_path / "probe.txt")}, "size": 6},
        "training": {"epochs": 2, "batch_size": 3, "learning_rate": 0.1},
        "measuring": {"curve": [0, 2], "rows": 4},
    }
    made = continual_config_from_dict(tree)
    (run,) = api.continual(made)["seeds"]
    texts, tokenizer = made.probe.open().asked.inputs, AutoTokenizer.from_pretrained(model)
    assert len(texts) == 6

    def log_probabilities(net):
        found = []
        for text in texts:
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            with torch.no_grad():
                found.append((net(ids).logits[0, :-1].log_softmax(-1), ids[0, 1:]))
        return found

    net = AutoModelForCausalLM.from_pretrained(model)
    before = log_probabilities(net)
    moved = load_file(next((tmp_path / "run/seed-0/model").glob("*.safetensors")))
    assert {*moved} <= {*net.state_dict()}
    net.load_state_dict(moved, strict=False)
    after = log_probabilities(net)
    tokens = sum(len(ids) for _, ids in before)
    nats = [-sum(float(p.gather(1, ids[:, None]).sum()) for p, ids in of) / tokens for of in (before, after)]
    kl = sum(float((p.exp() * (p - q)).sum()) for (p, _), (q, _) in zip(before, after, strict=True)) / tokens
    assert run["probe_baseline"] == pytest.approx(nats[0], abs=1e-4)
    assert run["probe"][-1] == pytest.approx(nats[1], abs=1e-4) and abs(nats[1] - nats[0]) > 1e-3
    assert run["probe_kl"][-1] == pytest.approx(kl, abs=1e-4) and kl > 1e-3
    # Signs are turned: more is better.
    numbers = run["metrics"]
    assert numbers["general_ability_change"] == pytest.approx(nats[0] - nats[1], abs=2e-4)
    assert numbers["accuracy_after_2_steps"] == pytest.approx(-sum(curve["2"] for curve in run["curves"]) / 2)
    assert numbers["trainable_parameters"] == run["trainable_parameters"] > 0


def test_what_does_not_fit_is_said(config, labelled, tmp_path):
    with pytest.raises(ConfigError, match=r"domain_text does not fit learner text_classifier.*labelled_text"):
        config(probe={"data": {"name": "domain_text", "path": "x"}})
    with pytest.raises(ConfigError, match=r"sinusoid has no texts to ask"):
        config(probe={"data": "sinusoid"})
    with pytest.raises(DataError, match="no such file"):
        api.continual(config("none", probe={**labelled, "data": {"name": "labelled_text", "path": "nowhere.csv"}}))
    assert not (tmp_path / "none").exists()
