"""The report: all of it in one file that asks the network for nothing and runs nobody's script."""

import json
import re
import sys
from html import unescape
from html.parser import HTMLParser

import pytest

from metacl.reporting import verdict, write_report
from metacl.reporting.report import cost_lines
from metacl.reporting.table import cells

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
        assert cells(row) in page.rows
    for sentence in verdict(results):
        assert sentence in unescape(html)
    for part in ("5-way 1-shot, 4 queries a class, 300 episodes", "name: demo", "torch ", "peft ", "metacl 0.1.0"):
        assert part in html
    assert sys.orig_argv[-1] in unescape(html)
    assert page.tags.count("svg") == 2


def test_it_refers_to_nothing_outside(written, results, metrics):
    page = Page(written(results, metrics))
    assert not {"script", "link", "img", "iframe", "object"} & {*page.tags}
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action", "data"):
            assert value.startswith("#")
        assert "url(" not in (value or "") or "url(#" in value
    assert "@import" not in written(results, metrics)


def test_the_same_run_gives_the_same_report(written, results, metrics):
    assert written(results, metrics) == written(json.loads(json.dumps(results)), metrics)


def test_a_phone_and_a_dark_room_are_thought_of(written, results):
    html = written(results)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert "prefers-color-scheme: dark" in html
    tables = re.findall(r"<div class=\"scroll[^>]*>\s*<table>", html)
    assert len(tables) == html.count("<table>") == 2


def test_strings_from_data_and_config_are_not_html(written, results):
    evil = "</pre><script>alert('x')</script>&amp;"
    results["run"] = evil
    results["protocol"]["data"] = evil
    results["rows"][0]["method"] = evil
    html = written(results, config=f"name: {evil}\n")
    assert "<script" not in html
    assert [evil, *cells(results["rows"][0])[1:]] in Page(html).rows
    assert f"name: {evil}" in unescape(html)


def test_an_evaluation_alone_has_no_training_parts(written, results):
    results["cost"] = {"evaluation_seconds": 61.0, "groups": 1}
    page = Page(written(results))
    assert page.tags.count("svg") == 1
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


def test_a_run_of_no_seconds_has_no_share(results):
    results["cost"]["training"]["seconds"] = 0.0
    assert "of it in the coordinator" not in dict(cost_lines(results["cost"]))


def test_a_library_that_is_missing_does_not_cost_the_report(written, results, monkeypatch):
    monkeypatch.setattr("metacl.reporting.report.LIBRARIES", ("torch", "no-such-library"))
    assert "no-such-library not installed" in written(results)
