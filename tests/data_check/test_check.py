"""Data with planted faults: each is found, counted and placed, and nothing else is."""

import json

import pytest
from transformers import AutoTokenizer

from metacl.config import config_from_dict
from metacl.data_check import check_config_data
from metacl.learners.pretrained import find_pretrained
from tests.small_runs import MINILM, save_tiny_bert, small_tree


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("model") / "tiny")


def clean_rows():
    return [{"text": f"sentence {i} about {c}", "label": c} for c in ("apes", "bees", "cats", "dogs") for i in range(6)]


def report_of(model, tmp_path, rows, **changes):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"train": ["apes", "bees"], "valid": [], "test": ["cats", "dogs"]}))
    tree = small_tree(model, tmp_path / "out", **changes)
    tree["data"] = {"name": "labelled_text", "path": str(path), "splits": str(splits), **tree.get("more", {})}
    tree["episodes"] = {"ways": 2, "shots": 1, "queries": 3, **changes.get("episodes", {})}
    return check_config_data(config_from_dict(tree))


def found(report, what):
    return [finding for finding in report.findings if finding.what == what]


def test_clean_data_raise_nothing(model, tmp_path):
    report = report_of(model, tmp_path, clean_rows())
    assert report.obstacle is None and {finding.level for finding in report.findings} == {"fine"}
    assert found(report, "train")[0].found == "2 classes, 12 different examples, 6 (apes) to 6 (bees) each"
    assert found(report, "valid")[0].found == "no classes"
    assert [
        f.found for f in (*found(report, "leakage"), *found(report, "conflicts"), *found(report, "duplicates"))
    ] == [
        "none across splits",
        "none",
        "none",
    ]
    assert len(report.episodes) == 5
    assert report.episodes[3][0] == "train/seed=0/step=0/index=3" and report.episodes[3][1] == "  support, 2"
    assert all(" about apes" in line or " about bees" in line for line in report.episodes[3] if line.startswith("    "))


def test_repeats_are_told_apart_and_placed(model, tmp_path):
    rows = clean_rows()
    rows += [
        {"text": "Sentence  0 about APES", "label": "apes"},  # line 25: a duplicate but for case and spaces
        {"text": "sentence 1 about apes", "label": "bees"},  # line 26: a conflict within train
        {"text": "sentence 2 about apes", "label": "cats"},  # line 27: in train and in test
    ]
    report = report_of(model, tmp_path, rows)
    path = tmp_path / "data.jsonl"
    (duplicates,), (leakage,), (conflicts,) = (found(report, w) for w in ("duplicates", "leakage", "conflicts"))
    assert duplicates.found.startswith("1 within") and duplicates.details == [f"{path}, line 25: as {path}, line 1"]
    assert (leakage.level, conflicts.level) == ("look", "look")
    assert leakage.details == [f"{path}, line 27 (test, cats): as {path}, line 3 (train, apes)"]
    assert conflicts.details == [f"{path}, line 26 (train, bees): as {path}, line 2 (train, apes)"]


def test_lengths_are_those_of_the_tokenizer(model, tmp_path):
    rows = [*clean_rows(), {"text": "word " * 30, "label": "apes"}]
    report = report_of(model, tmp_path, rows)
    tokenizer = AutoTokenizer.from_pretrained(find_pretrained(MINILM).folder)
    usual = len(tokenizer("sentence 3 about cats")["input_ids"])
    (lengths,) = found(report, "lengths")
    assert lengths.found == (
        f"median {usual}, 95 % up to {usual}, longest 32 tokens; learner.max_length 16 cuts 1 of 25 (4.0%)"
    )


@pytest.mark.parametrize(
    ("text", "sign"), [("caf\ufffd", "U+FFFD"), ("cafÃ©", "Latin-1"), ("itâ€™s", "Latin-1"), ("a\x00b", "control")]
)
def test_damaged_texts(model, tmp_path, text, sign):
    (finding,) = found(report_of(model, tmp_path, [*clean_rows(), {"text": text, "label": "apes"}]), "encoding")
    assert finding.level == "look" and finding.found.startswith("1 texts") and sign in finding.found
    assert "data.jsonl, line 25" in finding.details[0]


@pytest.mark.parametrize("text", ["Ünicode für Ärzte", "naïve café", "中文", "🙂 ok", "a\tb"])
def test_other_alphabets_are_not_damage(model, tmp_path, text):
    (finding,) = found(report_of(model, tmp_path, [*clean_rows(), {"text": text, "label": "apes"}]), "encoding")
    assert finding.found == "UTF-8, no signs of damage"


def test_unusable_classes_are_all_listed_and_an_obstacle(model, tmp_path):
    rows = [row for row in clean_rows() if row["label"] != "bees" or row["text"] < "sentence 2"]
    report = report_of(model, tmp_path, rows, episodes={"queries": 4})
    (finding,) = found(report, "unusable")
    assert finding.level == "wrong" and finding.details == ["bees: 2"]
    assert "'bees' (2)" in report.obstacle and report.episodes == []


def test_classes_in_no_split_are_said(model, tmp_path):
    report = report_of(model, tmp_path, [*clean_rows(), {"text": "x", "label": "eels"}])
    assert [note.found for note in found(report, "note")] == ["1 classes stand in no split: eels"]
    assert found(report, "leakage")[0].level == "fine"


def test_arrays_have_episodes_only(tmp_path, model):
    tree = small_tree(model, tmp_path / "out", episodes={"ways": 3, "shots": 1, "queries": 2})
    tree["learner"] = "conv"
    tree["data"] = "omniglot"
    tree["objective"] = "maml"
    report = check_config_data(config_from_dict(tree))
    assert [finding.what for finding in report.findings] == ["read"]
    assert report.episodes[0][1] == "  support: inputs (3, 1, 28, 28), targets (3,)"
