"""What the results say, in plain sentences.

Every figure in a sentence stands in the results. A difference that was not measured on the same episodes is never
computed here from two means: its interval would be unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metacl.evaluation.few_shot import BEST_BASELINE, BEST_PRETRAINED, SAME_START
from metacl.evaluation.methods import FROZEN, META_LEARNED, PRETRAINED
from metacl.reporting.wording import Estimate, inner_steps, percent

Row = Mapping[str, Any]


def verdict(results: Mapping[str, Any]) -> list[str]:
    """Meta-learned against frozen prototypes, against the pretrained start, and where the gain comes from.

    Parameters
    ----------
    results : dict
        The content of results.json.

    Returns
    -------
    list of str
        Sentences. A difference whose 95 % interval contains 0 is called not distinguishable.
    """
    rows: list[Row] = results["rows"]
    best = _best(row for row in rows if row["method"] == META_LEARNED)
    if best is None:
        return ["No meta-learned row was evaluated, so there is nothing to compare."]
    said = [_against_frozen(rows, best), _against_pretrained(rows, best)]
    if BEST_BASELINE in comparisons(rows) and BEST_BASELINE in best["versus"]:
        said.append(_against_baselines(rows, best))
    return [*said, _where_from(rows, best)]


def comparisons(rows: Sequence[Row]) -> tuple[str, ...]:
    """What columns compare with. The best baseline takes the pretrained's place where it may be another."""
    others = {row["method"] for row in rows} - {META_LEARNED, PRETRAINED, FROZEN}
    return (FROZEN, BEST_BASELINE if others else BEST_PRETRAINED, SAME_START)


def _against_baselines(rows: list[Row], best: Row) -> str:
    baseline = _best(row for row in rows if row["method"] != META_LEARNED)
    assert baseline is not None, "there are others"
    steps = "" if baseline["steps"] is None else f", {inner_steps(baseline['steps'])}"
    name = f"{baseline['method']} ({percent(baseline['accuracy'])} %{steps})"
    compared = _compared("that", best["versus"][BEST_BASELINE])
    return f"The best of all baselines on these episodes is {name}; the best meta-learned row is {compared}."


def _against_frozen(rows: list[Row], best: Row) -> str:
    frozen = _best(row for row in rows if row["method"] == FROZEN)
    row = f"The best meta-learned row ({_described(best)})"
    if frozen is None:
        return f"{row} has no frozen prototypes to be compared with: they were not evaluated."
    opponent = f"{FROZEN} ({percent(frozen['accuracy'])} %)"
    return f"{row} is {_compared(opponent, best['versus'][FROZEN])}."


def _against_pretrained(rows: list[Row], best: Row) -> str:
    pretrained = _best(row for row in rows if row["method"] == PRETRAINED)
    if pretrained is None:
        return "The pretrained start was not evaluated with inner steps, so the two starts are not compared."
    the_best = f"the best pretrained row ({_described(pretrained)})"
    return f"It is {_compared(the_best, best['versus'][BEST_PRETRAINED])}."


def _where_from(rows: list[Row], best: Row) -> str:
    start = _meta_learned(rows, 0)
    if start is None:
        return "What inner steps add is not known: meta-learned with 0 inner steps was not evaluated."
    adapted = best if best is not start else _best(row for row in rows if _took_steps(row))
    if adapted is None:
        added = "what inner steps would add was not evaluated"
    else:
        change = adapted["versus"][SAME_START]
        unsure = ", not distinguishable from 0" if _contains_zero(change) else ""
        added = f"taking {inner_steps(adapted['steps'])} adds {_difference(change)}{unsure}"
    if FROZEN not in start["versus"]:
        return f"From the meta-learned start, {added}."
    at_start = start["versus"][FROZEN]
    if best is start:
        return f"The whole difference to frozen prototypes is there at step 0, before any inner step; {added}."
    return (
        f"Of the {_points(best['versus'][FROZEN]['mean'])} against frozen prototypes, {_difference(at_start)} "
        f"are there at step 0, before any inner step; {added}."
    )


def _best(rows: Iterable[Row]) -> Row | None:
    """The row with the highest mean; of equals the one with the fewest steps, which is the cheapest."""
    return max(rows, key=lambda row: (row["accuracy"]["mean"], -(row["steps"] or 0)), default=None)


def _meta_learned(rows: list[Row], steps: int) -> Row | None:
    return next((row for row in rows if row["method"] == META_LEARNED and row["steps"] == steps), None)


def _took_steps(row: Row) -> bool:
    return row["method"] == META_LEARNED and row["steps"] > 0


def _described(row: Row) -> str:
    return f"{inner_steps(row['steps'])}, {percent(row['accuracy'])} %"


def _compared(opponent: str, difference: Estimate) -> str:
    if _contains_zero(difference):
        relation = "not distinguishable from"
    else:
        relation = "better than" if difference["mean"] > 0 else "worse than"
    return f"{relation} {opponent}: difference {_difference(difference)}"


def _contains_zero(difference: Estimate) -> bool:
    return difference["low"] <= 0 <= difference["high"]


def _difference(difference: Estimate) -> str:
    return (
        f"{_points(difference['mean'])} points (95 % interval {_points(difference['low'])} to "
        f"{_points(difference['high'])})"
    )


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.2f}"
