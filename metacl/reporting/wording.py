"""How figures are written, the same in the terminal and in the report.

Estimates are results.json's ``{"mean", "low", "high"}``, in fractions of 1; they are written in percent, and their
differences in percentage points.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Estimate = Mapping[str, float]


def percent(accuracy: Estimate) -> str:
    """``87.12±0.80``: the mean and half of its interval, in percent. Tight, so that the table fits 80 columns."""
    return f"{100 * accuracy['mean']:.2f}±{_half(accuracy)}"


def interval(estimate: Estimate) -> str:
    """``86.32 … 87.92``: an interval that may lie askew, in percent."""
    return f"{100 * estimate['low']:.2f} … {100 * estimate['high']:.2f}"


def points(difference: Estimate) -> str:
    """``+2.31±1.11``: the mean and half of its interval, in percentage points."""
    return f"{100 * difference['mean']:+.2f}±{_half(difference)}"


def milliseconds(seconds: float) -> str:
    """``3.1``, ``212``: tenths only where they matter."""
    value = 1000 * seconds
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def megabytes(count: float) -> str:
    """``0.27``, ``3.1``, ``212``: of 10⁶ bytes."""
    value = count / 1e6
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def inner_steps(steps: int) -> str:
    """``1 inner step``, ``5 inner steps``."""
    return f"{steps} inner step" if steps == 1 else f"{steps} inner steps"


def duration(seconds: float) -> str:
    """``1:05`` or ``2:00:07``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def protocol(results: Mapping[str, Any]) -> str:
    """One line on what was measured on what."""
    said = results["protocol"]
    named = f"protocol {said['name']}: " if "name" in said else ""
    splits = f" on each of {len(said['splits'])} class splits" if "splits" in said else ""
    return (
        f"{named}{said['ways']}-way {said['shots']}-shot, {said['queries']} queries a class, {said['episodes']} "
        f"episodes of the {said['split']} classes{splits} (seed {said['seed']}); {said['data']}"
    )


def cost(results: Mapping[str, Any]) -> str:
    """``3:20 of training (60 steps, 240 tasks, …), 5:02 of evaluation, on 2 worker group(s)``."""
    said = results["cost"]
    parts = []
    if training := said.get("training"):
        what = [f"{training['steps']} steps", f"{training['tasks']} tasks"]
        if training["seconds"] > 0:
            share = training["coordinator_seconds"] / training["seconds"]
            what.append(f"{100 * share:.1f} % of it the coordinator's")
        parts.append(f"{duration(training['seconds'])} of training ({', '.join(what)})")
    parts.append(f"{duration(said['evaluation_seconds'])} of evaluation")
    return f"{', '.join(parts)}, on {said['groups']} worker group(s)"


def _half(estimate: Estimate) -> str:
    return f"{50 * (estimate['high'] - estimate['low']):.2f}"
