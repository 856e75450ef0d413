"""An exported initialization is a plain PEFT adapter: what PEFT alone makes of it is what metacl makes of it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import metacl
from metacl.api import export_initialization
from metacl.errors import ConfigError, DataError, TrainingError
from metacl.initialization import load_initialization, read_initialization, write_initialization
from metacl.learners.pretrained import find_pretrained
from tests.small_runs import MINILM, small_config

TEXTS = [
    "where is my card",
    "my card has not come",
    "change my pin",
    "I forgot my pin",
    "top up by cheque",
    "add money",
]
LABELS = ["arrival", "arrival", "pin", "pin", "top up", "top up"]
QUERY = ["the new card is late", "reset the pin code", "can I top up with a cheque?"]


@pytest.fixture(scope="module")
def minilm_run(tmp_path_factory):
    """Two real outer steps on MiniLM, so that the adapter is not the trivial one."""
    config = small_config(MINILM, tmp_path_factory.mktemp("run") / "run", outer__steps=2, outer__learning_rate=0.01)
    return metacl.train(config)


def test_plain_peft_agrees_with_metacl(minilm_run, tmp_path):
    export = tmp_path / "export"
    export_initialization(minilm_run.folder, export)
    names = sorted(set(LABELS))
    episode = {
        "support_texts": TEXTS,
        "support_labels": [names.index(label) for label in LABELS],
        "query_texts": QUERY,
        "steps": 3,
    }
    (tmp_path / "episode.json").write_text(json.dumps(episode))
    script = Path(__file__).with_name("plain_peft.py")
    command = [
        sys.executable,
        str(script),
        str(export),
        str(find_pretrained(MINILM).folder),
        str(tmp_path / "episode.json"),
    ]
    theirs = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert theirs.returncode == 0, theirs.stderr
    ours = load_initialization(export).adapt(TEXTS, LABELS, steps=3).predict(QUERY)
    expected = np.array(json.loads(theirs.stdout.strip().splitlines()[-1]))
    found = np.array([[p.probabilities[name] for name in names] for p in ours])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert [p.label for p in ours] == LABELS[::2]


def test_adapting_changes_the_prediction_and_not_the_initialization(minilm_run):
    initialization = load_initialization(minilm_run.initialization)
    before = {name: tensor.clone() for name, tensor in initialization.meta.items()}
    still = initialization.adapt(TEXTS, LABELS, steps=0).predict(QUERY)
    moved = initialization.adapt(TEXTS, LABELS, steps=5).predict(QUERY)
    assert still != moved
    assert all(torch.equal(before[name], tensor) for name, tensor in initialization.meta.items())


def test_frozen_tensors_are_untouched(minilm_run):
    initialization = load_initialization(minilm_run.initialization)
    initialization.adapt(TEXTS, LABELS, steps=2)
    original = load_file(find_pretrained(MINILM).folder / "model.safetensors")
    held = {
        name.replace("base_model.model.", "").replace("base_layer.", ""): parameter
        for name, parameter in initialization.learner.adapted.model.named_parameters()
        if "lora_" not in name
    }
    compared = [name for name in original if name in held]
    assert len(compared) >= 100
    assert all(torch.equal(original[name], held[name]) and not held[name].requires_grad for name in compared)


def test_saved_adapted_model_predicts_the_same(minilm_run, tmp_path):
    model = load_initialization(minilm_run.initialization).adapt(TEXTS, LABELS, steps=2)
    model.save(tmp_path / "mine")
    assert metacl.load_adapted(tmp_path / "mine").predict(QUERY) == model.predict(QUERY)


def test_model_card_states_data_and_protocol(minilm_run):
    card = (minilm_run.initialization / "README.md").read_text()
    for part in ("base_model: " + MINILM, "banking77", "3-way 1-shot", "proto_maml", "Licence"):
        assert part in card


@pytest.mark.parametrize(
    ("bad", "message"), [(torch.zeros(0, 4), "empty"), (torch.tensor([1.0, float("nan")]), "not finite")]
)
def test_refuses_to_write_useless_tensors(minilm_run, tmp_path, bad, message):
    stored = read_initialization(minilm_run.initialization)
    learner = stored.config.learner.build(0)
    meta = {**stored.meta, sorted(stored.meta)[0]: bad}
    with pytest.raises(TrainingError, match=message):
        write_initialization(tmp_path / "out", stored.config, learner, meta, 2, "card")
    assert not list(tmp_path.iterdir())


def test_does_not_write_over_something_else(minilm_run, tmp_path):
    (tmp_path / "diary.txt").write_text("dear diary")
    with pytest.raises(ConfigError, match="not an initialization"):
        export_initialization(minilm_run.folder, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["diary.txt"]


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["a"], ["x", "y"], "1 texts but 2 labels"),
        (["a", "b"], ["x", "x"], "at least two labels"),
        (["a", " "], ["x", "y"], "text 2 is empty"),
        ([], [], "at least two labels"),
    ],
)
def test_bad_adaptation_data(minilm_run, texts, labels, message):
    with pytest.raises(DataError, match=message):
        load_initialization(minilm_run.initialization).adapt(texts, labels)


def test_not_an_initialization(tmp_path):
    with pytest.raises(DataError, match=r"adaptation\.json is not there"):
        load_initialization(tmp_path)
