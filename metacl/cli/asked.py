"""What ``metacl evaluate`` is asked for on the command line, read and fitted to a named protocol."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import yaml

from metacl.errors import ConfigError
from metacl.evaluation.protocols import Protocol, on_class_splits
from metacl.initialization import StoredInitialization
from metacl.tasks import TASK_SOURCES, EpisodeShape

QUERIES, EPISODES = 5, 300
"""Where nothing is said."""

Placed = list[tuple[StoredInitialization, dict[str, Any]]]
"""Initializations, each with the tree of the config that it is measured by."""


def method_options(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``--method-option METHOD.OPTION=VALUE``, values as YAML. Raises `ConfigError` for what is written otherwise."""
    options: dict[str, dict[str, Any]] = {}
    for text in given:
        key, separator, value = text.partition("=")
        method, dot, option = key.partition(".")
        if not (separator and dot and method and option):
            raise ConfigError(f"--method-option {text!r}: expected METHOD.OPTION=VALUE: fine_tuning.steps=[10,100].")
        try:
            options.setdefault(method, {})[option] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--method-option {text!r}: the value is not YAML; quote it.") from None
    return options


def step_size_factors(text: str) -> list[float]:
    """``--step-size-factors``. Raises `ConfigError` unless they are numbers above 0 that a table tells apart."""
    try:
        factors = [float(part) for part in text.split(",")]
    except ValueError:
        factors = []
    if not factors or not all(0 < factor < float("inf") for factor in factors):
        raise ConfigError(f"--step-size-factors {text!r}: expected numbers above 0 with commas between: 0.1,1,10.")
    alike = [f"{one:g}" for one in sorted(set(factors))]
    twice = next((one for one, other in pairwise(alike) if one == other), None)
    if twice is not None:
        raise ConfigError(
            f"--step-size-factors {text!r}: two of them are written {twice} in the table. Leave one of the two out."
        )
    return factors


def placed(named: Protocol, runs: Placed, given: bool) -> Placed:
    """The runs on the data that a protocol asks for, one for each class split if it has some.

    given : on the data of their trees; otherwise, on that of their training. Raises `ConfigError` if it does not fit.
    """
    sources = [TASK_SOURCES.build(tree["data"]) for _, tree in runs]
    for source in sources:
        named.check_data(source)
    if not named.class_splits:
        return runs
    places = on_class_splits(named, [run.config for run, _ in runs], sources[0] if given else None)
    return [(runs[place][0], {**runs[place][1], "data": source.to_dict()}) for place, source in places]


def settings(
    named: Protocol | None,
    ways: int | None,
    shots: Sequence[int] | None,
    queries: int | None,
    episodes: int | None,
    own: EpisodeShape,
) -> list[tuple[dict[str, int], int]]:
    """The shapes of episodes to measure, and of each how many: the protocol's, or what was asked for.

    own : the shape that the run was trained with, for what nobody says. Raises `ConfigError` for what a protocol fixes.
    """
    if named is None:
        return [
            ({"ways": ways or own.ways, "shots": shot, "queries": queries or QUERIES}, episodes or EPISODES)
            for shot in shots or [own.shots]
        ]
    if episodes is not None:
        raise ConfigError(f"--episodes: protocol {named.name} says {named.episodes}. Leave it out.")
    chosen = named.chosen(ways, shots)
    if queries is not None and any(setting.queries for setting in chosen):
        raise ConfigError(f"--queries: protocol {named.name} says how many. Leave it out.")
    return [
        (
            {
                "ways": setting.ways or own.ways,
                "shots": setting.shots,
                "queries": setting.queries or queries or QUERIES,
            },
            named.episodes,
        )
        for setting in chosen
    ]
