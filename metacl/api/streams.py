"""A stream of experiences, learned and drawn."""

from __future__ import annotations

from typing import Any

from metacl.continual.config import ContinualConfig
from metacl.continual.run import run_continual
from metacl.coordination.executor import Notify
from metacl.coordination.run_folder import write_text
from metacl.reporting.continual import heat_map, mean_curve


def continual(config: ContinualConfig, notify: Notify = lambda _: None) -> dict[str, Any]:
    """Learn a stream of experiences, one after another; what `metacl continual` does.

    Parameters
    ----------
    config : ContinualConfig
        From `load_continual_config`.
    notify : callable
        Told a line after every experience.

    Returns
    -------
    dict
        What results.json holds (`metacl.continual.results.results_of`). The run's folder has it, a heat map of R
        (``r_matrix.svg``), the mean over what was met (``mean.svg``), and every seed's checkpoints and model.
    """
    results = run_continual(config, notify)
    write_text(config.folder / "r_matrix.svg", heat_map(results))
    write_text(config.folder / "mean.svg", mean_curve(results))
    return results
