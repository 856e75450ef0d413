"""Explanations: what tokens add comes to the whole, as the axiom says; examples by scikit-learn's cosines."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from metacl import api
from metacl.cli import main
from metacl.errors import ConfigError
from metacl.initialization import load_adapted
from metacl.initialization.adapt import Initialization
from metacl.initialization.folder import StoredInitialization
from tests.small_runs import save_tiny_bert, small_config

TEXTS = ["where is my card", "my card is late", "change my pin", "I forgot the pin"]
LABELS = ["arrival", "arrival", "pin", "pin"]
ASKED = "the card has not come yet"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    config = small_config(save_tiny_bert(folder / "tiny"), folder / "out")
    _, meta = api.starting_point(config)
    return Initialization(StoredInitialization(config, meta, 0)).adapt(TEXTS, LABELS, steps=3)


def logits(model, ids):
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    batch = model.learner.encode([ASKED], None)
    batch.groups[0].inputs, batch.groups[0].prefix = inputs, None
    return model.learner.outputs(model.params, batch)[0]


def test_tokens_add_up_to_the_score(model):
    """Completeness (Sundararajan et al. 2017, sec. 3): the shares sum to F(text) − F(baseline)."""
    found = model.explain(ASKED)
    tokens = model.learner.tokenizer
    assert [token for token, _ in found.tokens] == tokens.tokenize(ASKED)
    ids = tokens(ASKED, return_tensors="pt")["input_ids"]
    empty = ids.clone()
    empty[:, 1:-1] = tokens.pad_token_id
    target = model.labels.index(found.prediction.label)
    with torch.no_grad():
        whole = float(logits(model, ids)[target] - logits(model, empty)[target])
    assert abs(whole) > 0.01
    assert sum(share for _, share in found.tokens) == pytest.approx(whole, rel=0.01, abs=1e-3)
    assert abs(found.remainder) < 0.01 * abs(whole) + 1e-3


def test_it_explains_what_is_predicted(model):
    found, (prediction,) = model.explain(ASKED), model.predict([ASKED])
    assert found.prediction.label == prediction.label
    assert found.prediction.probabilities == pytest.approx(prediction.probabilities, abs=1e-6)


def test_the_nearest_examples(model):
    features = [
        model.learner.features(model.params, model.learner.encode(texts, None)).detach().numpy()
        for texts in ([ASKED], TEXTS)
    ]
    (cosines,) = cosine_similarity(*features)
    order = np.argsort(-cosines)[:3]
    found = model.explain(ASKED).examples
    assert [(one.text, one.label) for one in found] == [(TEXTS[place], LABELS[place]) for place in order]
    assert [one.similarity for one in found] == pytest.approx(cosines[order], abs=1e-5)


def test_on_the_command_line(model, tmp_path, capsys):
    model.save(tmp_path / "adapted")
    assert load_adapted(tmp_path / "adapted").support == list(zip(TEXTS, LABELS, strict=True))
    for options in ([], ["--json"]):
        with pytest.raises(SystemExit) as exit_:
            main(["predict", str(tmp_path / "adapted"), "--text", ASKED, "--explain", *options])
        assert exit_.value.code == 0
    *plain, record = capsys.readouterr().out.splitlines()
    assert "card" in plain[1] and plain[1].strip().startswith("tokens:") and len(plain) == 5
    assert [token for token, _ in json.loads(record)["tokens"]] == [
        part.rsplit(" ", 1)[0] for part in plain[1].split(":", 1)[1].strip().split("  ")
    ]
    assert len(json.loads(record)["examples"]) == 3


def test_an_objective_that_scores_otherwise_is_refused(tmp_path):
    """ANML's gates are between features and scores; what explains the learner's score would not explain the label."""
    changes = {"objective": "anml", "episodes__ways": 2, "inner__step_size": {"learn": "none"}}
    config = small_config(save_tiny_bert(tmp_path / "tiny"), tmp_path / "out", **changes)
    _, meta = api.starting_point(config)
    generator = torch.Generator().manual_seed(0)
    meta = {name: tensor + torch.randn(tensor.shape, generator=generator) for name, tensor in meta.items()}
    model = Initialization(StoredInitialization(config, meta, 0)).adapt(TEXTS, LABELS, steps=0)
    with pytest.raises(ConfigError, match="anml scores otherwise than its learner"):
        model.explain(ASKED)
