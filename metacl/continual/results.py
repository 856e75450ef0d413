"""results.json of a continual run: the record of every seed, its numbers, and their means with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import metacl
from metacl.continual.config import ContinualConfig
from metacl.continual.metrics import metrics
from metacl.continual.record import Record
from metacl.evaluation.statistics import mean_interval

FORMAT = 1


def results_of(config: ContinualConfig, records: Mapping[int, Record]) -> dict[str, Any]:
    """The tree that is written.

    Returns
    -------
    dict
        format, metacl, run, measure, scenario, strategies, start, seeds_missing;
        seeds : for each that is done, its seed, the fields of its `Record` and its metrics;
        metrics : name -> mean, low, high (95 %, Student's t over seeds; only the mean for one seed), seeds; None where
        a seed's is not defined.
    """
    done = [{"seed": seed, **record.to_dict(), "metrics": numbers(record)} for seed, record in sorted(records.items())]
    return {
        "format": FORMAT,
        "metacl": metacl.__version__,
        "run": config.name,
        "measure": done[0]["measure"] if done else None,
        "scenario": config.scenario,
        "strategies": [strategy.to_dict() for strategy in config.strategies],
        "start": "pretrained" if config.start is None else str(config.start),
        "seeds_missing": sorted(set(config.seeds) - set(records)),
        "seeds": done,
        "metrics": summary([run["metrics"] for run in done]),
    }


def numbers(record: Record) -> dict[str, float | None]:
    """`metrics` of a record's R, and what the run needed."""
    found = metrics(record.rows, record.baseline, record.random, higher_is_better=record.measure == "accuracy")
    if record.kl_to_start[-1] is not None:
        found["kl_to_start"] = record.kl_to_start[-1]
    found["replay_bytes"] = float(record.replay_bytes[-1])
    found["state_bytes"] = float(record.state_bytes[-1])
    found["learn_seconds"] = sum(record.learn_seconds)
    return found


def summary(runs: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, float] | None]:
    """Mean and interval over runs, of every number that all of them have."""
    if not runs:
        return {}
    found: dict[str, dict[str, float] | None] = {}
    for name in runs[0]:
        if not all(name in run for run in runs):
            continue
        values = [value for run in runs if (value := run[name]) is not None]
        if len(values) < len(runs):
            found[name] = None
        elif len(values) < 2:
            found[name] = {"mean": values[0], "seeds": 1}
        else:
            estimate = mean_interval(values)
            found[name] = {"mean": estimate.mean, "low": estimate.low, "high": estimate.high, "seeds": len(values)}
    return found
