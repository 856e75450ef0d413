"""The closing table on the narrowest place it is read: the 80 columns of a log."""

import io

import pytest
from rich.console import Console

from metacl.reporting import closing_table, cost


def printed(results, width=80):
    file = io.StringIO()
    closing_table(results, Console(file=file, width=width))
    return file.getvalue()


def test_eighty_columns_hold_every_figure(results):
    text = printed(results)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert text.splitlines()[-1].strip()
    best = next(line for line in text.splitlines() if line.startswith("meta-learned") and " 5 " in line)
    assert best.split() == ["meta-learned", "5", "88.00±0.80", "+7.00±0.70", "+5.00±0.40", "+2.00±0.30", "107"]
    frozen = next(line for line in text.splitlines() if line.startswith("frozen prototypes"))
    assert frozen.split() == ["frozen", "prototypes", "–", "81.00±0.80", "–", "–", "–", "3.1"]


def test_digits_are_never_cut_off(results):
    text = printed(results, width=40)
    assert "…" not in text


def test_brackets_in_names_are_not_markup(results):
    results["run"] = "[bold]demo[/bold]"
    results["rows"][0]["method"] = "[red]"
    text = printed(results)
    assert "[bold]demo[/bold]" in text
    assert "[red]" in text


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_fewer_rows_are_a_table_too(results, kept):
    results["rows"] = results["rows"][:kept]
    assert "No meta-learned row" in printed(results)


def test_what_it_cost(results):
    assert cost(results) == (
        "2:01:42 of training (3 steps, 12 tasks, 1.0 % of it the coordinator's), 6:52 of evaluation, "
        "on 2 worker group(s)"
    )


def test_training_of_no_seconds_has_no_share(results):
    results["cost"]["training"]["seconds"] = 0.0
    assert cost(results).startswith("0:00 of training (3 steps, 12 tasks), ")
