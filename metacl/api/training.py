"""A config's whole way: outer loop, initialization, closing evaluation, report; what ``metacl train`` does."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metacl.api.executors import running_executor
from metacl.api.measuring import measure
from metacl.api.metrics import read_metrics, training_cost
from metacl.api.progress import EvaluationProgress
from metacl.api.starting import check_arrays, check_data, starting_point
from metacl.config import RunConfig, config_to_yaml
from metacl.coordination import coordinator
from metacl.coordination.coordinator import Resume
from metacl.coordination.flat import FlatLayout
from metacl.coordination.interrupt import StopRequested, StopSignals
from metacl.coordination.memory_plan import weightless
from metacl.coordination.run_folder import RunFolder, write_text
from metacl.errors import RunInterrupted
from metacl.initialization import write_initialization
from metacl.initialization.card import model_card
from metacl.learners.base import parameter_count
from metacl.reporting import QuietProgress, write_report


@dataclass(frozen=True)
class RunResult:
    """What a finished run left: its folder, the initialization in it, results.json's content (None: not evaluated)."""

    folder: Path
    initialization: Path
    results: dict[str, Any] | None


def train(config: RunConfig, progress: EvaluationProgress | None = None, resume: Resume = "auto") -> RunResult:
    """Meta-train, store the initialization, evaluate it, write the report.

    Parameters
    ----------
    config : RunConfig
        From `metacl.load_config` or `metacl.config_from_dict`.
    progress : optional
        Who shows it to a person; default nobody.
    resume : "auto", "never" or a checkpoint's path
        "auto" continues the run that lies in the config's output folder, if there is one.

    Raises
    ------
    MetaclError
        See `metacl.errors`; its `exit_code` says whose turn it is.
    """
    with RunFolder(config.folder).locked():
        return _train(config, progress or QuietProgress(), resume)


def _train(config: RunConfig, progress: EvaluationProgress, resume: Resume) -> RunResult:
    folder = RunFolder(config.folder)
    folder.check(config, resume=resume != "never")
    progress.note(check_data(config))
    learner, initial = weightless(config) if config.parameters_in_parts else starting_point(config)
    check_arrays(config, learner, initial)
    start = coordinator.starting_checkpoint(config, FlatLayout.of(initial), resume, progress.note)
    # Signals come after the executor: ray.init puts a handler of its own in the place of ours.
    with running_executor(config, progress.note) as executor, StopSignals() as signals:
        folder.claim(config)
        if start is None or start.step < config.outer.steps:
            folder.discard_results()
        if config.compiles:
            progress.note(
                "the first step traces and compiles: about two minutes, less once the compiler's cache is warm"
            )
        started = time.perf_counter()
        partition = config.inner.partitioned(learner.partition)
        trained = coordinator.train(config, initial, executor, progress, signals, start, partition)
        training_seconds = time.perf_counter() - started
        write_initialization(
            folder.initialization, config, learner, trained.meta, trained.step, model_card(config, trained.step, None)
        )
        if config.evaluation is None:
            return RunResult(folder.path, folder.initialization, None)
        learned = parameter_count(trained.meta)  # which may be in processes that end with the executor
        try:
            with signals.abandonable():
                results = measure(config, config.evaluation, executor, trained.broadcast, progress).results
        except StopRequested:
            raise RunInterrupted(
                f"training is complete ({folder.initialization}), the evaluation was stopped. "
                f"The same command evaluates again."
            ) from None
    results["cost"].update(
        training_seconds_this_session=training_seconds,
        training=training_cost(folder),
        base_parameters=learner.base_parameters,
        learned_parameters=learned,
    )
    write_text(folder.results, json.dumps(results, indent=2) + "\n")
    write_text(folder.initialization / "README.md", model_card(config, trained.step, results))
    write_report(folder.report, results, read_metrics(folder), config_to_yaml(config))
    return RunResult(folder.path, folder.initialization, results)
