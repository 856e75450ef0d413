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
    """`metrics` of a record's R, and what else its seed left. Signs are turned as there, so that more is better.

    accuracy_after_N_steps : mean over the experiences of the measure on their own test after N steps of them, where all
    took so many. general_ability_change : of the measure on the probe set since before the stream.
    probe_kl_to_start, kl_to_start : in the end; see `Record`.
    """
    sign = 1 if record.measure == "accuracy" else -1
    found = metrics(record.rows, record.baseline, record.random, higher_is_better=sign > 0)
    for steps in record.curves[0]:
        if all(steps in curve for curve in record.curves):
            values = [curve[steps] for curve in record.curves]
            found[f"accuracy_after_{steps}_steps"] = sign * sum(values) / len(values)
    if record.probe_baseline is not None:
        found["general_ability_change"] = sign * (record.probe[-1] - record.probe_baseline)
        found["probe_kl_to_start"] = record.probe_kl[-1]
    if record.kl_to_start[-1] is not None:
        found["kl_to_start"] = record.kl_to_start[-1]
    found["trainable_parameters"] = float(record.trainable_parameters)
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
