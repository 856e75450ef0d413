"""The report: all of it in one file that asks the network for nothing and runs nobody's script."""

import base64
import csv
import hashlib
import json
import re
import sys
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib.image
import pytest

from metacl.reporting import verdict, write_evaluation, write_report
from metacl.reporting.report import cost_lines
from metacl.reporting.table import cells
from metacl.reporting.verdict import comparisons

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects tags, attributes and table rows, and checks that tags nest."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.rows, self._open = [], [], [], []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture
def written(tmp_path):
    def write(results, metrics=(), config="name: demo\n"):
        path = tmp_path / "report.html"
        write_report(path, results, list(metrics), config)
        assert [file.name for file in tmp_path.iterdir()] == ["report.html"]  # nothing half-written beside it
        return path.read_text("utf-8")

    return write


def test_every_row_and_sentence_is_in_it(written, results, metrics):
    html = written(results, metrics)
    page = Page(html)
    for row in results["rows"]:
        assert cells(row, comparisons(results["rows"])) in page.rows
    for sentence in verdict(results):
        assert sentence in unescape(html)
    for part in ("5-way 1-shot, 4 queries a class, 300 episodes", "name: demo", "torch ", "peft ", "metacl 0.1.0"):
        assert part in html
    assert sys.orig_argv[-1] in unescape(html)
    assert page.tags.count("svg") == 3


def test_it_refers_to_nothing_outside(written, results, metrics):
    page = Page(written(results, metrics))
    assert not {"link", "img", "iframe", "object"} & {*page.tags}
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action", "data"):
            assert value.startswith("#")
        assert "url(" not in (value or "") or "url(#" in value
    assert "@import" not in written(results, metrics)


def test_the_one_script_is_the_one_that_the_page_allows(written, results):
    html = written(results)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    sha = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{sha}'" in html
    assert "http" not in script and "fetch" not in script


def test_the_same_run_gives_the_same_report(written, results, metrics):
    assert written(results, metrics) == written(json.loads(json.dumps(results)), metrics)


def test_a_phone_and_a_dark_room_are_thought_of(written, results):
    html = written(results)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert "prefers-color-scheme: dark" in html
    tables = re.findall(r"<div class=\"scroll[^>]*>\s*<table", html)
    assert len(tables) == html.count("<table") == 8


def test_strings_from_data_and_config_are_not_html(written, results):
    evil = "</pre><script>alert('x')</script>&amp;"
    results["run"] = evil
    results["protocol"]["data"] = evil
    results["rows"][0]["method"] = evil
    results["confusions"][0]["true"] = results["examples"][0]["query"][0]["text"] = evil
    html = written(results, config=f"name: {evil}\n")
    assert html.count("<script") == 1  # the page's own
    assert [evil, *cells(results["rows"][0], comparisons(results["rows"]))[1:]] in Page(html).rows
    assert f"name: {evil}" in unescape(html)


def test_an_evaluation_alone_has_no_training_parts(written, results):
    results["cost"] = {"evaluation_seconds": 61.0, "groups": 1}
    page = Page(written(results))
    assert page.tags.count("svg") == 2
    assert ["evaluation", "1:01"] in page.rows
    assert not any("training" in row[0] for row in page.rows)


def test_cost_by_hand(results):
    assert cost_lines(results["cost"]) == [
        ("outer steps", "3"),
        ("tasks", "12"),
        ("training", "2:01:42"),
        ("of it in the coordinator", "1.00 %"),
        ("training, last session", "1:01:51"),
        ("evaluation", "6:52"),
        ("worker groups", "2"),
        ("parameters of the frozen base", "22,713,216"),
        ("parameters learned", "73,728"),
    ]


def test_what_adapting_takes_is_in_it(written, results):
    rows = Page(written(results)).rows
    start = rows.index(["method", "inner steps", "ms to adapt", "tokens to adapt", "MB to adapt"])
    assert rows[start + 1 : start + 5] == [
        ["frozen prototypes", "–", "3.1", "310", "0.27"],
        ["pretrained", "5", "107", "1,863", "155"],
        ["meta-learned", "0", "2.0", "310", "5.2"],
        ["meta-learned", "5", "107", "1,863", "155"],
    ]
    for row in results["rows"]:
        row["tokens"] = None  # arrays
    assert ["frozen prototypes", "–", "3.1", "–", "0.27"] in Page(written(results)).rows


def test_a_run_of_no_seconds_has_no_share(results):
    results["cost"]["training"]["seconds"] = 0.0
    assert "of it in the coordinator" not in dict(cost_lines(results["cost"]))


def test_a_library_that_is_missing_does_not_cost_the_report(written, results, monkeypatch):
    monkeypatch.setattr("metacl.reporting.page.LIBRARIES", ("torch", "no-such-library"))
    assert "no-such-library not installed" in written(results)


def test_metrics_confusions_and_episodes_are_in_it(written, results):
    page = Page(written(results))
    assert ["meta-learned", "5", "87.50", "88.00", "87.00", "3.25", "0", "87.10 … 88.70"] in page.rows
    assert ["card arrival", "card delivery", "3", "12", "25.0"] in page.rows
    assert ["where is it", "card delivery", "card arrival (61 %)"] in page.rows
    assert "1 of 1 answers wrong" in written(results)
    assert "Chosen on validation classes: fine-tuning, LoRA: learning rate 0.001; 0.001: 80.0 %, 0.1: 20.0 %." in (
        written(results)
    )


def test_curves_and_other_step_sizes_are_in_it(written, results):
    page = Page(written(results))
    assert ["meta-learned", "0–5", "87.00±0.50", "–", "0"] in page.rows
    assert ["pretrained", "10", "5", "20.00±1.00", "7"] in page.rows
    del results["robustness"]
    assert "With other step sizes" not in written(results)


def test_reasons_are_shaded_by_their_share_of_the_largest(written, results):
    html = written(results)
    found = re.findall(r'<span class="token (\w+)" style="--weight: ([\d.]+)">(\w+) <small>([-+\d.]+)</small>', html)
    expected = [("for", "1.00", "where", "+0.50"), ("against", "0.50", "is", "-0.25"), ("for", "0.00", "it", "+0.00")]
    assert found == expected
    assert "like (0.83) card arrival: has my card come" in html
    results["examples"][0]["query"][0]["why"]["tokens"] = [["<b>", 0.0]]
    assert "&lt;b&gt; <small>+0.00" in written(results)
    del results["examples"][0]["query"][0]["why"]
    assert "integrated" not in written(results)


def test_results_of_an_older_version_have_a_report(written, results):
    for name in ("confusions", "examples", "chosen", "curves", "robustness"):
        del results[name]
    for row in results["rows"]:
        del row["metrics"], row["tokens"], row["memory_bytes"]
    html = written(results)
    assert "Other metrics" not in html
    assert ["meta-learned", "5", "107", "–", "–"] in Page(html).rows


def test_the_files_beside_it_hold_the_same(tmp_path, results):
    page = write_evaluation(tmp_path / "report", results, "name: demo\n")
    assert sorted(file.name for file in page.parent.iterdir()) == [
        f"5-way_1-shot.{ending}" for ending in ("csv", "html", "json", "png", "svg")
    ]
    picture = matplotlib.image.imread(page.with_suffix(".png"))
    assert picture.shape[:2] == (720, 1080) and picture[0, 0, :3].tolist() == [1, 1, 1] and picture.min() < 0.1
    assert json.loads(page.with_suffix(".json").read_text("utf-8")) == results
    rows = list(csv.DictReader(page.with_suffix(".csv").read_text("utf-8").splitlines()))
    assert [(row["method"], row["steps"], float(row["accuracy"]), float(row["macro_f1"])) for row in rows][-1] == (
        "meta-learned",
        "5",
        0.88,
        0.87,
    )
    assert [rows[-1][name] for name in ("tokens", "memory_bytes")] == ["1863.0", "155250000.0"]
    ElementTree.fromstring(page.with_suffix(".svg").read_text("utf-8"))
