"""Perplexity rows by hand arithmetic, and the whole way of a language model on the command line."""

import json
import math
from pathlib import Path

import pytest
import yaml
from scipy import stats

from metacl.cli import main
from metacl.evaluation import perplexity
from metacl.evaluation.methods import META_LEARNED, PRETRAINED
from metacl.tasks import EpisodeShape, TaskAddress
from tests.small_models import save_family


def test_rows_are_means_of_logs_and_paired_gains(monkeypatch):
    addresses = [TaskAddress("test", 0, 0, index) for index in range(3)]
    known = {
        "p": [{0: 3, 2: 2}, {0: 2, 2: 2}, {0: 4, 2: 2}],
        "m": [{0: 2, 2: 1}, {0: 2, 2: 0}, {0: 2, 2: 1}],
    }
    monkeypatch.setattr(
        perplexity, "log_perplexities", lambda _, meta, places, *__: dict(zip(places, known[meta], strict=True))
    )
    rows = perplexity.perplexity_rows(None, {PRETRAINED: "p", META_LEARNED: "m"}, addresses, EpisodeShape(ways=1), [2])
    assert [(row.method, row.steps) for row in rows] == [(m, s) for m in (PRETRAINED, META_LEARNED) for s in (0, 2)]
    assert [row.log_perplexity.mean for row in rows] == pytest.approx([3, 2, 2, 2 / 3])
    assert rows[0].gain is None
    # Pretrained after 2 steps gains 1, 0, 2 on no step; meta-learned 1, 2, 1 on pretrained after as many.
    assert [row.gain.mean for row in rows[1:]] == pytest.approx([1, 1, 4 / 3])
    half = stats.t.ppf(0.975, 2) * 1 / math.sqrt(3)
    assert rows[1].gain.low == pytest.approx(1 - half)


@pytest.fixture
def run_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = save_family("llama", tmp_path / "llama", causal=True)
    (tmp_path / "texts").mkdir()
    for word in ("abab", "aabb", "abba", "baab", "bbaa"):
        texts = [f"{word * (2 + i % 3)} {word * (1 + i // 3)}" for i in range(9)]
        (tmp_path / "texts" / f"{word}.txt").write_text("\n\u241e\n".join(texts))
    tree = {
        "name": "words",
        "learner": {"name": "causal_lm", "model": str(model), "max_length": 24, "adapter": {"targets": ["down_proj"]}},
        "data": {"name": "domain_text", "path": "texts", "window_characters": 20},
        "episodes": {"ways": 1, "shots": {"min": 1, "max": 3}, "queries": 2},
        "objective": "maml",
        "inner": {"steps": 2, "step_size": {"value": 0.05}},
        "outer": {"steps": 6, "tasks_per_step": 2, "learning_rate": 0.01},
        "workers": {"executor": "local"},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "run.yaml"


def ended(*arguments):
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return exit_.value.code


def test_a_language_model_from_texts_to_its_perplexity(run_of, capsys):
    assert ended("data", "check", run_of) == 0
    assert ended("train", run_of) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "evaluate runs/words" in said and "metacl adapt" not in said
    asked = ("--shots", 3, "--queries", 2, "--episodes", 4, "--steps", "0,2")
    assert ended("evaluate", "runs/words", *asked, "--json", "found.json") == 0
    shown = capsys.readouterr().out
    rows = json.loads(Path("found.json").read_text())["rows"]
    expected = [(method, steps) for method in (PRETRAINED, META_LEARNED) for steps in (0, 2)]
    assert [(row["method"], row["steps"]) for row in rows] == expected
    assert all(f"{math.exp(row['log_perplexity']['mean']):.2f}" in shown for row in rows)
    assert ended("evaluate", "runs/words", *asked, "--groups", 0, "--json", "again.json") == 0
    assert json.loads(Path("again.json").read_text())["rows"] == rows
    capsys.readouterr()
    for option, message in (
        (("--ways", 3), "--ways: without --data a language model is measured by its perplexity"),
        (("--new-tokens", 3), "--new-tokens: this run's texts have no completions to compare with"),
        (("--data", "oos"), "--ways: missing; this run's own episodes have one class"),
    ):
        assert ended("evaluate", "runs/words", *option) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    for option, wrong in (("--shots", 0), ("--steps", -1)):
        assert ended("evaluate", "runs/words", option, wrong) == 2
        assert f"{option} '{wrong}': expected whole numbers of at least" in " ".join(capsys.readouterr().err.split())
