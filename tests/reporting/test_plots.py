"""The figures as SVG: well-formed, the same every time, saying what they should."""

from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from metacl.reporting.plots import adaptation_curves, running_mean, training_curves

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_adaptation_curves_name_every_method_and_every_number_of_steps(rows):
    said = texts(adaptation_curves(rows))
    assert {"frozen prototypes", "pretrained", "meta-learned", "0", "5", "inner steps", "query accuracy, %"} <= {*said}


@pytest.mark.parametrize("kept", [[0], [2], [0, 2]])
def test_adaptation_curves_of_few_rows(rows, kept):
    ElementTree.fromstring(adaptation_curves([rows[index] for index in kept]))


def test_a_methods_name_is_only_text(rows):
    rows[1]["method"] = "<script>$\\frac{$ & co"
    assert "<script>$\\frac{$ & co" in texts(adaptation_curves(rows))


def test_training_curves_name_their_lines(metrics):
    assert {"query", "support, before", "support, after", "outer step"} <= {*texts(training_curves(metrics))}


def test_training_curves_without_inner_steps_have_no_support_loss(metrics):
    for line in metrics:
        line.update(support_loss_first=None, support_loss_last=None)
    said = texts(training_curves(metrics[:1]))
    assert "query" in said
    assert not any("support" in text for text in said)


def test_figures_are_the_same_bytes_every_time_and_under_any_settings(rows, metrics):
    first = adaptation_curves(rows), training_curves(metrics)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": None}):
        second = adaptation_curves(rows), training_curves(metrics)
        assert matplotlib.rcParams["font.size"] == 30
    assert first == second


def test_figures_take_the_pages_colour_and_share_no_ids(rows, metrics):
    both = [adaptation_curves(rows), training_curves(metrics)]
    assert all("fill: currentColor" in svg and "#010203" not in svg for svg in both)
    ids = [[element.get("id") for element in ElementTree.fromstring(svg).iter() if element.get("id")] for svg in both]
    assert not {*ids[0]} & {*ids[1]}


def test_references_inside_a_figure_lead_somewhere(rows):
    root = ElementTree.fromstring(adaptation_curves(rows))
    ids = {element.get("id") for element in root.iter()}
    used = [element.get("{http://www.w3.org/1999/xlink}href") for element in root.iter(f"{SVG}use")]
    clips = [path for element in root.iter() if (path := element.get("clip-path"))]
    assert used
    assert clips
    assert {reference.removeprefix("#") for reference in used} <= ids
    assert {clip.removeprefix("url(#").removesuffix(")") for clip in clips} <= ids


def test_running_mean_by_hand():
    assert running_mean(np.array([4.0, 2.0, 0.0, 7.0]), 3).tolist() == pytest.approx([4.0, 3.0, 2.0, 3.0])
