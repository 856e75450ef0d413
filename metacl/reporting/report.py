"""The report of a run: one HTML file that needs no network and can be mailed.

Written from what the run folder holds; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from metacl.coordination.run_folder import write_text
from metacl.reporting.page import render
from metacl.reporting.plots import adaptation_curves, step_size_curves, training_curves
from metacl.reporting.table import ABSENT, cells, headers, to_adapt
from metacl.reporting.verdict import comparisons, verdict
from metacl.reporting.wording import duration, interval, percent, points, protocol


def write_report(
    path: Path, results: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], config_yaml: str
) -> None:
    """Write the report, whole or not at all.

    Parameters
    ----------
    path : Path
        Of the HTML file.
    results : dict
        The content of results.json. Without the training parts (``metacl evaluate``) the report has none.
    metrics : list of dict
        The lines of metrics.jsonl; may be empty.
    config_yaml : str
        The resolved config.
    """
    html = render(
        "report.html.jinja",
        results["metacl"],
        run=results["run"],
        verdict=verdict(results),
        adaptation=Markup(adaptation_curves(results["rows"])),
        headers=headers(results["rows"]),
        rows=[cells(row, comparisons(results["rows"])) for row in results["rows"]],
        by_split=split_lines(results),
        curves=curve_lines(results.get("curves", [])),
        robustness=robustness_lines(results.get("robustness", [])),
        step_sizes=Markup(step_size_curves(results["robustness"])) if results.get("robustness") else None,
        source=results["protocol"].get("source"),
        metrics=metric_lines(results["rows"]),
        confusions=confusion_lines(results.get("confusions", [])),
        examples=results.get("examples", []),
        explained=any("why" in one for episode in results.get("examples", []) for one in episode["query"]),
        weight=token_weight,
        chosen=chosen_lines(results.get("chosen", [])),
        protocol=protocol(results),
        interval=results["protocol"]["interval"],
        training=Markup(training_curves(metrics)) if metrics else None,
        to_adapt=adapting_lines(results["rows"]),
        cost=cost_lines(results["cost"]),
        config=config_yaml,
    )
    write_text(path, html)


METRICS = {
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "calibration_error": "calibration error",
}


def metric_lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Method, steps and every metric in percent, a line a row that has them; the first is the head. May be empty."""
    lines = [
        [row["method"], ABSENT if row["steps"] is None else str(row["steps"])]
        + [f"{100 * row['metrics'][name]:.2f}" for name in METRICS]
        + [str(row["diverged"]), interval(row["bootstrap"]) if "bootstrap" in row else ABSENT]
        for row in rows
        if row.get("metrics")
    ]
    return (
        [
            [
                *("method", "inner steps", *(f"{name}, %" for name in METRICS.values())),
                *("episodes diverged", "accuracy, bootstrap interval, %"),
            ],
            *lines,
        ]
        if lines
        else []
    )


def split_lines(results: Mapping[str, Any]) -> list[list[str]]:
    """Method, steps and the accuracy on every class split, a line a row; the first is the head. Empty for one split."""
    splits = results.get("by_split", [])
    if not splits:
        return []
    lines = [
        [row["method"], ABSENT if row["steps"] is None else str(row["steps"])]
        + [percent(of["rows"][place]["accuracy"]) for of in splits]
        for place, row in enumerate(results["rows"])
    ]
    return [["method", "inner steps", *(f"split {of['split']} ({of['run']}), %" for of in splits)], *lines]


def curve_lines(curves: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What whole curves say, a line a method; the first is the head. Empty without curves."""
    if not curves:
        return []
    lines = [
        [
            one["method"],
            f"{one['first']}–{one['last']}",
            percent(one["area"]),
            ABSENT if one["versus_pretrained"] is None else points(one["versus_pretrained"]),
            ABSENT if one["steps_to_baseline"] is None else str(one["steps_to_baseline"]),
        ]
        for one in curves
    ]
    return [["method", "steps", "area under the curve, %", "vs pretrained", "steps to the best baseline"], *lines]


def robustness_lines(robustness: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Start, factor, accuracy and diverged episodes, a line each; the first is the head. Empty without any."""
    if not robustness:
        return []
    lines = [
        [one["start"], f"{one['factor']:g}", str(one["steps"]), percent(one["accuracy"]), str(one["diverged"])]
        for one in robustness
    ]
    return [["start", "step sizes ×", "inner steps", "accuracy, %", "episodes diverged"], *lines]


def confusion_lines(confusions: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Pairs of classes, a line each; the first is the head. Empty without any."""
    if not confusions:
        return []
    lines = [
        [one["true"], one["predicted"], str(one["times"]), str(one["of"]), f"{100 * one['times'] / one['of']:.1f}"]
        for one in confusions
    ]
    return [["true class", "taken for", "times", "of", "share, %"], *lines]


def token_weight(share: float, tokens: Sequence[tuple[str, float]]) -> float:
    """How strongly a token is shaded, 0 to 1: its share against the largest of the text."""
    return abs(share) / (max(abs(of) for _, of in tokens) or 1.0)


def chosen_lines(chosen: Sequence[Mapping[str, Any]]) -> list[str]:
    """What validation episodes chose, a sentence a method."""
    return [
        f"{one['method']}: {one['option']} {one['chosen']:g}; "
        + ", ".join(f"{value}: {100 * accuracy:.1f} %" for value, accuracy in one["validation_accuracies"].items())
        for one in chosen
    ]


def adapting_lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What it took to adapt to an episode, a line a row; the first is the head."""
    lines = [[row["method"], ABSENT if row["steps"] is None else str(row["steps"]), *to_adapt(row)] for row in rows]
    return [["method", "inner steps", "ms to adapt", "tokens to adapt", "MB to adapt"], *lines]


def cost_lines(spent: Mapping[str, Any]) -> list[tuple[str, str]]:
    """results.json's ``cost`` as lines of (what, how much); only of what is in it."""
    lines: list[tuple[str, str]] = []
    if "training" in spent:
        training = spent["training"]
        lines += [
            ("outer steps", f"{training['steps']}"),
            ("tasks", f"{training['tasks']}"),
            ("training", duration(training["seconds"])),
        ]
        if training["seconds"] > 0:
            share = training["coordinator_seconds"] / training["seconds"]
            lines.append(("of it in the coordinator", f"{100 * share:.2f} %"))
    if "training_seconds_this_session" in spent:
        lines.append(("training, last session", duration(spent["training_seconds_this_session"])))
    lines += [("evaluation", duration(spent["evaluation_seconds"])), ("worker groups", f"{spent['groups']}")]
    if "base_parameters" in spent:
        lines.append(("parameters of the frozen base", f"{spent['base_parameters']:,}"))
    if "learned_parameters" in spent:
        lines.append(("parameters learned", f"{spent['learned_parameters']:,}"))
    return lines
