"""The report of a language model: perplexity over inner steps, and what it says; one HTML file, and its figures."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from metacl.coordination.run_folder import write_text
from metacl.reporting.page import render
from metacl.reporting.perplexity import METRICS, completion_figure, language_protocol
from metacl.reporting.plots import loss_curves
from metacl.reporting.report import cost_lines
from metacl.reporting.table import ABSENT


def write_language_evaluation(folder: Path, results: Mapping[str, Any], config_yaml: str) -> Path:
    """Write ``perplexity_K-shot.html``, ``.svg``, ``.json`` and ``.csv``, over those that are there; returns the page.

    Parameters
    ----------
    results : dict
        What `metacl.api.evaluate_perplexity` found.
    config_yaml : str
        The resolved config.
    """
    folder.mkdir(exist_ok=True)
    page = folder / f"perplexity_{results['protocol']['shots']}-shot.html"
    figure = loss_curves(results["rows"])
    write_text(page.with_suffix(".svg"), figure)
    write_text(page.with_suffix(".json"), json.dumps(results, indent=2) + "\n")
    write_text(page.with_suffix(".csv"), _csv(results))
    generation = results["protocol"]["generation"]
    html = render(
        "language.html.jinja",
        results["metacl"],
        run=results["run"],
        protocol=language_protocol(results),
        interval=results["protocol"]["interval"],
        figure=Markup(figure),
        rows=perplexity_lines(results["rows"]),
        completions=completion_lines(results.get("completions", [])),
        examples=results.get("examples", []),
        tokens=None if generation is None else generation["new_tokens"],
        cost=cost_lines(results["cost"]),
        config=config_yaml,
    )
    write_text(page, html)
    return page


def perplexity_lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A line a row, the first is the head."""
    lines = [["method", "inner steps", "perplexity", "95 % interval", "gain, nats", "its 95 % interval"]]
    for row in rows:
        mean, low, high = (math.exp(row["log_perplexity"][key]) for key in ("mean", "low", "high"))
        gain = row["gain"]
        gained = (ABSENT, ABSENT)
        if gain is not None:
            gained = (f"{gain['mean']:+.3f}", f"{gain['low']:+.3f} … {gain['high']:+.3f}")
        lines.append([row["method"], str(row["steps"]), f"{mean:.2f}", f"{low:.2f} … {high:.2f}", *gained])
    return lines


def completion_lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A line a row with each metric and its gain, the first is the head; empty without any."""
    if not rows:
        return []
    named = [name for name in METRICS if name in rows[0]["metrics"]]
    generated = rows[0]["corpus_bleu"] is not None
    head = ["method", "inner steps", *(["BLEU, all tasks"] if generated else [])]
    for name in named:
        head += [METRICS[name][0], f"vs, {METRICS[name][0]}"]
    lines = [head]
    for row in rows:
        line = [row["method"], str(row["steps"]), *([f"{row['corpus_bleu']:.1f}"] if generated else [])]
        for name in named:
            gain = row["gains"].get(name)
            line += [
                completion_figure(row["metrics"][name], name),
                ABSENT if gain is None else completion_figure(gain, name, sign="+"),
            ]
        lines.append(line)
    return lines


def _csv(results: Mapping[str, Any]) -> str:
    """A line a row: nats a token with interval, then the means of what was said; empty where there is nothing."""
    said = {(row["method"], row["steps"]): row for row in results.get("completions", [])}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "steps", "log_perplexity", "low", "high", *METRICS, "corpus_bleu"])
    for row in results["rows"]:
        of_row = said.get((row["method"], row["steps"]), {"metrics": {}, "corpus_bleu": None})
        writer.writerow(
            [
                row["method"],
                row["steps"],
                *(row["log_perplexity"][key] for key in ("mean", "low", "high")),
                *(of_row["metrics"][name]["mean"] if name in of_row["metrics"] else "" for name in METRICS),
                "" if of_row["corpus_bleu"] is None else of_row["corpus_bleu"],
            ]
        )
    return text.getvalue()
