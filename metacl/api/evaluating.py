"""An initialization measured on any labelled data with any shape of episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metacl.api.comparing import compared_methods
from metacl.api.executors import check_sent_whole, measuring_executor
from metacl.api.measuring import Measured, measure
from metacl.api.progress import EvaluationProgress
from metacl.api.starting import check_data
from metacl.config import RunConfig
from metacl.coordination.flat import FlatLayout
from metacl.errors import ConfigError
from metacl.evaluation.methods.choosing import Options
from metacl.initialization import StoredInitialization
from metacl.reporting import QuietProgress
from metacl.tasks import seen_classes


def evaluate(
    stored: StoredInitialization,
    config: RunConfig,
    progress: EvaluationProgress | None = None,
    methods: Sequence[str] | None = None,
    options: Options | None = None,
    explain: bool = False,
    factors: Sequence[float] = (),
) -> dict[str, Any]:
    """Measure an initialization by ``config.evaluation`` on ``config.data``.

    Parameters
    ----------
    stored : StoredInitialization
        From `metacl.initialization.read_initialization`.
    config : RunConfig
        The initialization's own, with data, workers and evaluation as wanted.
    methods : list of str
        Names of what it is compared with (``metacl list``), or ["all"]; default: frozen prototypes and the same inner
        loop from the pretrained model.
    options : dict
        Options of methods by the method's name: {"fine_tuning": {"steps": [10, 100]}}.
    explain : bool
        Whether the example episodes say why: which tokens and support examples some answers come from. Seconds.
    factors : list of float
        Also measure both starts with all inner step sizes times each, after as many steps as in training.

    Returns
    -------
    dict
        What results.json holds: protocol, rows (accuracy, interval, other metrics, paired differences; seconds, tokens
        and bytes to adapt), confusions and example episodes of the best meta-learned row, cost.
    """
    return evaluated(stored, config, progress or QuietProgress(), methods, options, explain, factors).results


def evaluated(
    stored: StoredInitialization,
    config: RunConfig,
    progress: EvaluationProgress,
    methods: Sequence[str] | None,
    options: Options | None,
    explain: bool,
    factors: Sequence[float],
) -> Measured:
    """`evaluate`, with the answers from which its results were computed."""
    if config.evaluation is None:
        raise ConfigError("evaluation: missing; say ways, shots, queries and episodes.")
    check_sent_whole(config)
    check_data(config, training=False)
    if seen := seen_classes(stored.config.data, config.data):
        progress.note(f"not all is unseen: this run was trained with {len(seen)} held-out classes ({seen[0]}, …)")
    compared = None if methods is None else compared_methods(methods, config, progress.note, options)
    with measuring_executor(config, progress) as executor:
        meta = FlatLayout.of(stored.meta).flatten(stored.meta)
        return measure(config, config.evaluation, executor, meta, progress, compared, explain, factors)
