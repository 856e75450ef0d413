"""The report of a language model: every figure in its place, nothing of the data taken for HTML, files beside it."""

import csv
import json
import math

import pytest

from metacl.reporting import write_language_evaluation
from tests.reporting.test_report_page import Page


@pytest.fixture
def page(tmp_path, language_results):
    return write_language_evaluation(tmp_path / "report", language_results, "name: words\n")


def test_every_figure_is_in_it(page):
    html = page.read_text("utf-8")
    rows = Page(html).rows
    bounds = " … ".join(f"{math.exp(value):.2f}" for value in (1.4, 1.6))
    assert ["meta-learned", "5", f"{math.exp(1.5):.2f}", bounds, "+0.500", "+0.450 … +0.550"] in rows
    assert ["pretrained", "0", f"{math.exp(2):.2f}", f"{math.exp(1.9):.2f} … {math.exp(2.1):.2f}", "–", "–"] in rows
    assert ["meta-learned", "5", "31.0", "30.0±3.0", "+10.0±2.0", "25.0±12.5", "–"] in rows
    assert ["inform(name=<x>)", "it is x", "it is y"] in rows
    assert "<x>" not in html
    assert "at most 40 tokens" in html and "1:01" in html and "name: words" in html and "metacl 0.1.0" in html


def test_the_files_beside_it(page, language_results):
    assert sorted(file.name for file in page.parent.iterdir()) == [
        f"perplexity_3-shot.{ending}" for ending in ("csv", "html", "json", "svg")
    ]
    assert json.loads(page.with_suffix(".json").read_text()) == language_results
    with page.with_suffix(".csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert (last["method"], last["log_perplexity"], last["bleu"], last["rouge1"]) == ("meta-learned", "1.5", "30.0", "")


def test_perplexity_alone(tmp_path, language_results):
    del language_results["completions"], language_results["examples"]
    language_results["protocol"]["generation"] = None
    html = write_language_evaluation(tmp_path / "report", language_results, "").read_text("utf-8")
    assert "What it says" not in html and "Some of it" not in html


def test_a_reward_alone(tmp_path, language_results):
    language_results["protocol"]["generation"], language_results["examples"] = None, []
    for row in language_results["completions"]:
        row["metrics"], row["corpus_bleu"], row["gains"] = {"reward": row["metrics"]["exact_match"]}, None, {}
    html = write_language_evaluation(tmp_path / "report", language_results, "").read_text("utf-8")
    assert ["meta-learned", "5", "0.250±0.125", "–"] in Page(html).rows and "at most" not in html
