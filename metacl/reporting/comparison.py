"""Results of several runs side by side, for the terminal and for a paper."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metacl.errors import DataError
from metacl.evaluation.methods import META_LEARNED
from metacl.reporting.table import ABSENT, to_adapt
from metacl.reporting.wording import percent, protocol

NEEDED = {"run", "protocol", "rows"}
ESCAPES = {"\\": r"\textbackslash{}", **{sign: f"\\{sign}" for sign in "&%$#_{}"}, "~": r"\textasciitilde{}"}
ESCAPES["^"] = r"\textasciicircum{}"


@dataclass(frozen=True)
class Comparison:
    """A table: a line a method, mostly with a number of steps, a column a run or several.

    notes : the protocol of each column. same : whether all columns are of the same episodes.
    """

    headers: list[str]
    lines: list[list[str]]
    notes: list[str]
    same: bool


def read_results(path: Path) -> list[dict[str, Any]]:
    """The evaluations in a run's folder, or in a file that ``metacl evaluate --json`` or ``--report`` wrote.

    Raises
    ------
    DataError
        There is none, or it holds something else.
    """
    file = path / "results.json" if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{file}: not there. Name the folder of an evaluated run, or the JSON of an evaluation.")
    try:
        found = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: no JSON ({error}).") from None
    results = found if isinstance(found, list) else [found]
    for one in results:
        if not isinstance(one, dict) or not set(one) >= NEEDED or not all("accuracy" in row for row in one["rows"]):
            raise DataError(f"{file}: holds no accuracies; expected what metacl train or metacl evaluate wrote.")
    return results


def compare(results: Sequence[Mapping[str, Any]]) -> Comparison:
    """Lines in the order in which methods first appear, the meta-learned last."""
    return _by_row(results, _headings(results), lambda row: [percent(row["accuracy"])])


def costs(results: Sequence[Mapping[str, Any]]) -> Comparison:
    """What each row took to adapt to an episode; three columns a run, whose figures are a mean over its episodes."""
    headers = [f"{what}, {name}" for name in _headings(results) for what in ("ms", "tokens", "MB")]
    return _by_row(results, headers, to_adapt)


def _by_row(
    results: Sequence[Mapping[str, Any]], headers: Sequence[str], figures: Callable[[Mapping[str, Any]], list[str]]
) -> Comparison:
    """As many `figures` of a row for each run as there are headers for it; `ABSENT` where a run lacks the row."""
    rows = {(row["method"], row["steps"]) for one in results for row in one["rows"]}
    first = {
        row["method"]: place for place, row in reversed(list(enumerate(row for r in results for row in r["rows"])))
    }
    order = sorted(rows, key=lambda row: (row[0] == META_LEARNED, first[row[0]], -1 if row[1] is None else row[1]))
    found = [{(row["method"], row["steps"]): figures(row) for row in one["rows"]} for one in results]
    missing = [ABSENT] * (len(headers) // len(results))
    return Comparison(
        ["method", "inner steps", *headers],
        [
            [
                method,
                ABSENT if steps is None else str(steps),
                *(text for of in found for text in of.get((method, steps), missing)),
            ]
            for method, steps in order
        ],
        [f"{one['run']}: {protocol(one)}" for one in results],
        len({_episodes(one) for one in results}) == 1,
    )


def reaching(results: Sequence[Mapping[str, Any]], threshold: float) -> Comparison:
    """How soon each method's mean accuracy is at least `threshold`, a fraction of 1.

    A column a run: the fewest inner steps asked that reach it ("reached" for a method that takes none). Where they are
    one run's, and differ in nothing but their shots (and in their queries where those are as many), the last column is
    the fewest shots, examples a class, with which any number of steps reaches it.
    """
    methods = list(dict.fromkeys(row["method"] for one in results for row in one["rows"]))
    columns = [_fewest_steps(one["rows"], threshold) for one in results]
    shots = [one["protocol"].get("shots") for one in results]
    as_many_queries = all(one["protocol"].get("queries") == shot for one, shot in zip(results, shots, strict=True))
    but = ("shots", "queries") if as_many_queries else ("shots",)
    by_shots = len(set(shots)) > 1 and len({(one["run"], _episodes(one, but)) for one in results}) == 1
    lines = []
    for method in methods:
        enough = [shot for shot, column in zip(shots, columns, strict=True) if method in column]
        lines.append([method, *(column.get(method, ABSENT) for column in columns)])
        if by_shots:
            lines[-1].append(str(min(enough)) if enough else ABSENT)
    percentage = f"{100 * threshold:g} %"
    headers = [f"steps to {percentage}, {name}" for name in _headings(results)]
    return Comparison(
        ["method", *headers, *([f"shots to {percentage}"] if by_shots else [])],
        lines,
        [f"{one['run']}: {protocol(one)}" for one in results],
        by_shots or len({_episodes(one) for one in results}) == 1,
    )


def _fewest_steps(rows: Sequence[Mapping[str, Any]], threshold: float) -> dict[str, str]:
    """By method, of those that reach it."""
    found: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: row["steps"] or 0):
        if row["accuracy"]["mean"] >= threshold:
            found.setdefault(row["method"], "reached" if row["steps"] is None else str(row["steps"]))
    return found


def _headings(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of runs, with the shape of the episodes where one name stands there twice."""
    names = [str(one["run"]) for one in results]
    said = [one["protocol"] for one in results]
    return [
        name if names.count(name) == 1 else f"{name}, {of['ways']}-way {of['shots']}-shot"
        for name, of in zip(names, said, strict=True)
    ]


def _episodes(results: Mapping[str, Any], but: Sequence[str] = ()) -> str:
    """What tells one set of episodes from another, `but` left out."""
    asked = ("data", "split", "ways", "shots", "queries", "episodes", "seed")
    return json.dumps([results["protocol"].get(key) for key in asked if key not in but])


def as_latex(comparison: Comparison) -> str:
    """A ``tabular`` for the package booktabs, ready to paste."""
    lines = [" & ".join(map(_latex, line)) + r" \\" for line in (comparison.headers, *comparison.lines)]
    return "\n".join(
        [
            *(f"% {note}" for note in comparison.notes),
            rf"\begin{{tabular}}{{lr{'c' * (len(comparison.headers) - 2)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _latex(text: str) -> str:
    escaped = "".join(ESCAPES.get(sign, sign) for sign in text)
    return escaped.replace("±", r" $\pm$ ").replace(ABSENT, "--")
