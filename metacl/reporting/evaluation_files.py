"""What ``metacl evaluate --report`` leaves: a page to read, and the same as figure, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metacl.coordination.run_folder import write_bytes, write_text
from metacl.errors import ConfigError
from metacl.reporting.plots import adaptation_curves, adaptation_picture
from metacl.reporting.report import METRICS, write_report

TO_ADAPT = ("seconds", "tokens", "memory_bytes")
BOOTSTRAP = ("bootstrap_low", "bootstrap_high")


def check_report_folder(folder: Path) -> None:
    """Before the work: may a report be written there? Raises `ConfigError` if not."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--report {folder}: this is a file; name a folder.")
    if not folder.absolute().parent.is_dir():
        raise ConfigError(f"--report {folder}: the folder {folder.absolute().parent} does not exist.")


def write_evaluation(folder: Path, results: Mapping[str, Any], config_yaml: str) -> Path:
    """Write ``N-way_K-shot.html``, ``.svg``, ``.png``, ``.json`` and ``.csv``, over what is there; returns the page."""
    folder.mkdir(exist_ok=True)
    said = results["protocol"]
    page = folder / f"{said['ways']}-way_{said['shots']}-shot.html"
    write_text(page.with_suffix(".svg"), adaptation_curves(results["rows"]))
    write_bytes(page.with_suffix(".png"), adaptation_picture(results["rows"]))
    write_text(page.with_suffix(".json"), json.dumps(results, indent=2) + "\n")
    write_text(page.with_suffix(".csv"), as_csv(results["rows"]))
    write_report(page, results, [], config_yaml)
    return page


def as_csv(rows: list[Mapping[str, Any]]) -> str:
    """A line a row of results.json: accuracy and its interval, metrics, what it took to adapt; fractions of 1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    accuracy = ("accuracy", "low", "high")
    writer.writerow(["method", "steps", *accuracy, *METRICS, *TO_ADAPT, "diverged", "spread", *BOOTSTRAP])
    for row in rows:
        writer.writerow(
            [
                row["method"],
                "" if row["steps"] is None else row["steps"],
                *(row["accuracy"][key] for key in ("mean", "low", "high")),
                *(row["metrics"].get(name, "") for name in METRICS),
                *("" if row.get(name) is None else row[name] for name in TO_ADAPT),
                row["diverged"],
                "" if row.get("spread") is None else row["spread"],
                *(row["bootstrap"][key] if "bootstrap" in row else "" for key in ("low", "high")),
            ]
        )
    return text.getvalue()
