"""One evaluation over several class splits of a bundled data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metacl.api.evaluating import evaluated
from metacl.api.measuring import best_learned, tables
from metacl.api.progress import EvaluationProgress
from metacl.config import RunConfig
from metacl.evaluation import table, worst_confusions
from metacl.evaluation.methods.choosing import Options
from metacl.initialization import StoredInitialization
from metacl.reporting import QuietProgress
from metacl.tasks.class_episodes import NAMES_SHOWN
from metacl.tasks.labelled_text import LabelledText


def evaluate_on_splits(
    parts: Sequence[tuple[StoredInitialization, RunConfig]],
    progress: EvaluationProgress | None = None,
    methods: Sequence[str] | None = None,
    options: Options | None = None,
    explain: bool = False,
    factors: Sequence[float] = (),
) -> dict[str, Any]:
    """Measure on several class splits of a bundled data set, each by its own initialization or all by the same.

    Parameters
    ----------
    parts : list of (StoredInitialization, RunConfig)
        For each class split, as `evaluate` takes them; the same shape and number of episodes in all.
    methods, options, explain, factors : as of `evaluate`; the example episodes are the first split's

    Returns
    -------
    dict
        As of `evaluate`, over the episodes of all splits; each row with the spread of the splits' accuracies, and
        ``by_split`` with every split's own rows.
    """
    progress = progress or QuietProgress()
    found = [
        evaluated(stored, config, progress, methods, options, explain and place == 0, factors)
        for place, (stored, config) in enumerate(parts)
    ]
    splits = [_class_split(config) for _, config in parts]
    each = [one.results for one in found]
    datasets = ", ".join(dict.fromkeys(name for name, _ in splits))
    named = [split for _, split in splits]
    shown = NAMES_SHOWN if any(config.data.shows_names for _, config in parts) else ""
    evaluation = parts[0][1].evaluation
    assert evaluation is not None, "checked for every split"
    best = best_learned(table(*(one.scores for one in found)))
    answered = [(one.scores, config.data.open()) for one, (_, config) in zip(found, parts, strict=True)]
    return {
        **each[0],
        "run": ", ".join(dict.fromkeys(results["run"] for results in each)),
        "protocol": {
            **each[0]["protocol"],
            "data": f"{datasets}, published class splits {', '.join(named)}{shown}",
            "splits": named,
            "interval": "95 %, Student's t over the episodes of all splits; differences are paired by episode",
        },
        **tables([one.scores for one in found], found[0].scaled_steps, [one.scaled for one in found]),
        "confusions": worst_confusions(answered, best, evaluation.shape),
        "chosen": [
            {**one, "method": f"{one['method']} (split {split})"}
            for results, split in zip(each, named, strict=True)
            for one in results["chosen"]
        ],
        "cost": {**each[0]["cost"], "evaluation_seconds": sum(one["cost"]["evaluation_seconds"] for one in each)},
        "by_split": [
            {"split": split, "run": one["run"], "rows": one["rows"]} for split, one in zip(named, each, strict=True)
        ],
    }


def _class_split(config: RunConfig) -> tuple[str, str]:
    assert isinstance(config.data, LabelledText) and config.data.dataset is not None, "of a bundled data set"
    return config.data.dataset, config.data.class_split
