"""The whole way from a config to a measured initialization, as functions.

`train` is what ``metacl train`` does: outer loop, initialization, closing evaluation, report. `evaluate`
measures an initialization on any labelled data with any shape of episode.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

import metacl
from metacl.config import Evaluation, RunConfig, config_to_yaml
from metacl.continual.config import ContinualConfig
from metacl.continual.run import run_continual
from metacl.coordination import coordinator
from metacl.coordination.coordinator import Resume
from metacl.coordination.executor import Executor, LocalExecutor, Notify, running
from metacl.coordination.flat import FlatLayout
from metacl.coordination.interrupt import StopRequested, StopSignals
from metacl.coordination.memory_plan import weightless
from metacl.coordination.run_folder import RunFolder, write_text
from metacl.coordination.step import Progress
from metacl.coordination.worker import Meta
from metacl.errors import ConfigError, DataError, RunInterrupted
from metacl.evaluation import (
    AdaptationMethod,
    Row,
    RowResult,
    Scores,
    as_dict,
    can_explain,
    choose,
    chosen_methods,
    completion_rows,
    completions,
    curves,
    default_methods,
    example_episodes,
    examples_said,
    perplexity_rows,
    robustness,
    scaled_steps,
    table,
    with_reasons,
    worst_confusions,
)
from metacl.evaluation import evaluate as run_evaluation
from metacl.evaluation.methods import META_LEARNED, PRETRAINED
from metacl.evaluation.methods.choosing import Options
from metacl.evaluation.robustness import ScaledSteps
from metacl.initialization import StoredInitialization, read_initialization, write_initialization
from metacl.initialization.card import model_card
from metacl.learners.base import Learner, Params, parameter_count, use_threads
from metacl.learners.generation import Generation
from metacl.objectives import PolicyGradient
from metacl.reporting import QuietProgress, write_report
from metacl.reporting.continual import heat_map, mean_curve
from metacl.tasks import TaskAddress, seen_classes
from metacl.tasks.labelled_text import LabelledText


@dataclass(frozen=True)
class RunResult:
    """What a finished run left: its folder, the initialization in it, results.json's content (None: not evaluated)."""

    folder: Path
    initialization: Path
    results: dict[str, Any] | None


class EvaluationProgress(Progress, Protocol):
    """A `Progress` that also follows an evaluation."""

    def evaluation_progress(self, done: int, of: int) -> None:
        """`done` of `of` episodes are scored."""
        ...


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
    _check_arrays(config, learner, initial)
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
                results = _measure(config, config.evaluation, executor, trained.broadcast, progress).results
        except StopRequested:
            raise RunInterrupted(
                f"training is complete ({folder.initialization}), the evaluation was stopped. "
                f"The same command evaluates again."
            ) from None
    results["cost"].update(
        training_seconds_this_session=training_seconds,
        training=_training_cost(folder),
        base_parameters=learner.base_parameters,
        learned_parameters=learned,
    )
    write_text(folder.results, json.dumps(results, indent=2) + "\n")
    write_text(folder.initialization / "README.md", model_card(config, trained.step, results))
    write_report(folder.report, results, read_metrics(folder), config_to_yaml(config))
    return RunResult(folder.path, folder.initialization, results)


VALIDATION_EPISODES = 30
"""Episodes of the validation classes that choose between a method's candidates."""


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
        What results.json holds: protocol, rows (accuracy, interval, other metrics, paired differences, seconds),
        confusions and example episodes of the best meta-learned row, cost.
    """
    return _evaluated(stored, config, progress or QuietProgress(), methods, options, explain, factors).results


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
        _evaluated(stored, config, progress, methods, options, explain and place == 0, factors)
        for place, (stored, config) in enumerate(parts)
    ]
    splits = [_class_split(config) for _, config in parts]
    each = [one.results for one in found]
    datasets = ", ".join(dict.fromkeys(name for name, _ in splits))
    named = [split for _, split in splits]
    evaluation = parts[0][1].evaluation
    assert evaluation is not None, "checked for every split"
    best = _best_learned(table(*(one.scores for one in found)))
    answered = [(one.scores, config.data.open()) for one, (_, config) in zip(found, parts, strict=True)]
    return {
        **each[0],
        "run": ", ".join(dict.fromkeys(results["run"] for results in each)),
        "protocol": {
            **each[0]["protocol"],
            "data": f"{datasets}, published class splits {', '.join(named)}",
            "splits": named,
            "interval": "95 %, Student's t over the episodes of all splits; differences are paired by episode",
        },
        **_tables([one.scores for one in found], found[0].scaled_steps, [one.scaled for one in found]),
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


def _evaluated(
    stored: StoredInitialization,
    config: RunConfig,
    progress: EvaluationProgress,
    methods: Sequence[str] | None,
    options: Options | None,
    explain: bool,
    factors: Sequence[float],
) -> _Measured:
    if config.evaluation is None:
        raise ConfigError("evaluation: missing; say ways, shots, queries and episodes.")
    if config.parameters_in_parts:
        raise _sent_whole()
    check_data(config, training=False)
    if seen := seen_classes(stored.config.data, config.data):
        progress.note(f"not all is unseen: this run was trained with {len(seen)} held-out classes ({seen[0]}, …)")
    compared = None if methods is None else compared_methods(methods, config, progress.note, options)
    with _measuring(config, progress) as executor:
        meta = FlatLayout.of(stored.meta).flatten(stored.meta)
        return _measure(config, config.evaluation, executor, meta, progress, compared, explain, factors)


def _check_arrays(config: RunConfig, learner: Learner, initial: Params) -> None:
    """Arrays say nothing of their shapes in a config: the first episode goes through the learner once."""
    if config.data.gives != "arrays":
        return
    task = learner.prepare(config.data.open().episode(TaskAddress("train", config.seed, 0, 0), config.episodes))
    problem = config.objective.problem(learner, initial, task, config.inner)
    try:
        with torch.no_grad():
            problem.query_loss(problem.start(initial), initial)
    except RuntimeError as error:
        raise ConfigError(
            f"learner: an episode of this data does not go through it ({str(error).splitlines()[0]}). Rows have the "
            f"shape {tuple(task.support.input.shape[1:])}; set the learner's inputs to it."
        ) from None


def _validation(evaluation: Evaluation) -> Evaluation:
    return evaluation.model_copy(update={"split": "valid", "episodes": VALIDATION_EPISODES})


def compared_methods(
    names: Sequence[str], config: RunConfig, notify: Callable[[str], None], options: Options | None = None
) -> list[AdaptationMethod]:
    """What an initialization is compared with, by names or ["all"], each of which can be run.

    Raises
    ------
    ConfigError, DataError
        One that is named cannot; of "all" it is left out, with a note where the data stands in its way.
    """
    assert config.evaluation is not None, "checked before"
    methods = chosen_methods(names, config.evaluation.steps, config, options)
    tuned = [method for method in methods if len(method.candidates()) > 1]
    if not tuned:
        return methods
    if config.evaluation.split == "valid":
        raise ConfigError(
            f"--methods {tuned[0].registered_name}: it is tuned on validation classes, so it cannot be measured on "
            f"them. Set evaluation.split=test."
        )
    try:
        config.data.open().check("valid", config.evaluation.shape)
    except DataError as error:
        if tuple(names) == ("all",):
            left_out = ", ".join(dict.fromkeys(str(method.registered_name) for method in tuned))
            notify(f"left out, for they are tuned on validation classes and the data has too few: {left_out}")
            return [method for method in methods if method not in tuned]
        raise DataError(
            f"--methods {tuned[0].registered_name}: it is tuned on validation classes; there are too few. {error} "
            f"frozen_prototypes, nearest_neighbour, label_names and pretrained need no tuning."
        ) from None
    return methods


def _sent_whole() -> ConfigError:
    return ConfigError(
        "workers.zero_stage: this run's parameters lie in parts, and a stored initialization is sent out whole. "
        "Evaluate it in one process (metacl evaluate … --groups 0), or set workers.zero_stage=2."
    )


@contextmanager
def _measuring(config: RunConfig, progress: EvaluationProgress) -> Iterator[Executor]:
    """The config's executor for an evaluation that a signal may stop at any time."""
    with running_executor(config, progress.note) as executor, StopSignals() as signals:
        try:
            with signals.abandonable():
                yield executor
        except StopRequested:
            raise RunInterrupted("the evaluation was stopped; nothing was written.") from None


def evaluate_perplexity(
    stored: StoredInitialization,
    evaluation: Evaluation,
    progress: EvaluationProgress | None = None,
    generation: Generation | None = None,
) -> dict[str, Any]:
    """Measure an initialization of a language model on tasks of its own data that training never saw.

    Of a run that adapts by reward the reward is measured, too.

    Parameters
    ----------
    stored : StoredInitialization
        From `metacl.initialization.read_initialization`.
    evaluation : Evaluation
        Shape, number and seed of the tasks, and the inner steps after which they are measured.
    generation : Generation
        Where texts have completions: also generate those of the query's prompts, so, and hold them against the data's.

    Returns
    -------
    dict
        The protocol and a row for each start and number of steps: mean log-perplexity in nats per token, and what
        was gained, paired by task. Where there are any, ``completions`` has rows of BLEU, ROUGE, exact match, reward
        (`metacl.evaluation.CompletionRow`), and ``examples`` some of what was said.

    Raises
    ------
    ConfigError
        The run's texts have no completions, or its model is spread over several ranks.
    """
    progress, config, started = progress or QuietProgress(), stored.config, time.perf_counter()
    if config.parameters_in_parts:
        raise _sent_whole()
    if generation is not None:
        _check_generates(config)
    config.data.open().check(evaluation.split, evaluation.shape)
    _, initial = starting_point(config)
    layout = FlatLayout.of(stored.meta)
    starts = {PRETRAINED: layout.flatten(initial), META_LEARNED: layout.flatten(stored.meta)}
    addresses = [TaskAddress(evaluation.split, evaluation.seed, 0, index) for index in range(evaluation.episodes)]
    with _measuring(config, progress) as executor:
        rows = perplexity_rows(executor, starts, addresses, evaluation.shape, evaluation.steps)
        said = None
        if generation is not None or isinstance(config.objective, PolicyGradient):
            said = completions(executor, starts, addresses, evaluation.shape, evaluation.steps, generation)
    answers = {}
    if said is not None:
        answers = {"completions": [asdict(row) for row in completion_rows(said)], "examples": examples_said(said)}
    return {
        "run": config.name,
        "metacl": metacl.__version__,
        "protocol": {
            "data": config.data.open().describe(),
            "split": evaluation.split,
            **evaluation.shape.to_dict(),
            "episodes": evaluation.episodes,
            "seed": evaluation.seed,
            "generation": None if generation is None else generation.to_dict(),
            "interval": "95 %, Student's t over tasks; gains are paired by task",
        },
        "rows": [asdict(row) for row in rows],
        **answers,
        "cost": {"evaluation_seconds": time.perf_counter() - started, "groups": config.workers.groups},
    }


def _check_generates(config: RunConfig) -> None:
    if config.learner.scores_after is None:
        raise ConfigError(
            "--new-tokens: this run's texts have no completions to compare with (learner.completion_after is null)."
        )
    if config.workers.ranks_per_group > 1 or config.workers.zero_stage == 3:
        raise ConfigError("--new-tokens: text is generated by whole models in one process each. Give --groups 0.")


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


def export_initialization(run: Path, folder: Path) -> tuple[int, int]:
    """Copy a run's initialization to `folder`. Returns its tensors and the numbers in them.

    Raises `DataError` if the run has none, `TrainingError` if a tensor is empty or not finite.
    """
    source = run / "init" if (run / "init" / "adaptation.json").exists() else run
    stored = read_initialization(source)
    learner = stored.config.learner.build(stored.config.seed)
    card = (source / "README.md").read_text("utf-8")
    write_initialization(folder, stored.config, learner, stored.meta, stored.trained_steps, card)
    return len(stored.meta), parameter_count(stored.meta)


def check_data(config: RunConfig, training: bool = True) -> str:
    """Read the data and check that every episode the run needs can be drawn. Returns one line about it."""
    source = config.data.open()
    if training:
        source.check("train", config.episodes)
        if config.outer.held_out is not None:
            source.check("valid", config.episodes)
    if config.evaluation is not None:
        source.check(config.evaluation.split, config.evaluation.shape)
    return source.describe()


def starting_point(config: RunConfig) -> tuple[Learner, Params]:
    """The learner and the meta-parameters before training. Raises `ConfigError` if the estimator cannot take it."""
    use_threads(config.workers.threads)
    learner = config.learner.build(config.seed)
    config.estimator.check_learner(learner)
    return learner, config.objective.meta_parameters(learner, config.inner, config.episodes.ways)


@contextmanager
def running_executor(config: RunConfig, notify: Notify) -> Iterator[Executor]:
    """The config's executor, started; closed on the way out whatever happens."""
    make: Callable[[RunConfig, Notify], Executor] = LocalExecutor
    if config.workers.executor == "ray":
        from metacl.coordination.ray_executor import RayExecutor

        make = RayExecutor
    with running(make(config, notify)) as executor:
        yield executor


def read_metrics(folder: RunFolder) -> list[dict[str, Any]]:
    """The run's metrics, a dict a step; none if it took no step of its own."""
    if not folder.metrics.exists():
        return []
    return [json.loads(line) for line in folder.metrics.read_text("utf-8").splitlines()]


@dataclass(frozen=True)
class _Measured:
    """What an evaluation found; scaled: what the methods of `scaled_steps` answered, {} if there are none."""

    results: dict[str, Any]
    scores: Scores
    scaled_steps: list[ScaledSteps]
    scaled: Scores


def _measure(
    config: RunConfig,
    evaluation: Evaluation,
    executor: Executor,
    meta: Meta,
    progress: EvaluationProgress,
    methods: Sequence[AdaptationMethod] | None = None,
    explain: bool = False,
    factors: Sequence[float] = (),
) -> _Measured:
    started = time.perf_counter()
    compared = methods or default_methods(evaluation.steps, config.learner.has_features)
    if any(len(method.candidates()) > 1 for method in compared):
        progress.note(f"tuning baselines on {VALIDATION_EPISODES} episodes of the validation classes")
    chosen = choose(executor, meta, compared, _validation(evaluation), progress.evaluation_progress)
    progress.note(
        f"evaluating {evaluation.shape.ways}-way {evaluation.shape.shots}-shot on {evaluation.episodes} episodes "
        f"of the {evaluation.split} classes"
    )
    scores = run_evaluation(executor, meta, [one.method for one in chosen], evaluation, progress.evaluation_progress)
    rows = table(scores)
    best = _best_learned(rows)
    answers = _answers(config, evaluation, scores, best)
    if explain and best.steps is not None and can_explain(config):
        answers["examples"] = with_reasons(
            executor, meta, list(scores), answers["examples"], evaluation.shape, best.steps
        )
    scaled = scaled_steps(factors, config.inner.steps or max(evaluation.steps)) if factors else []
    scaled_scores: Scores = {}
    if scaled:
        progress.note(f"the same episodes with inner step sizes times {', '.join(f'{one:g}' for one in factors)}")
        scaled_scores = run_evaluation(executor, meta, scaled, evaluation, progress.evaluation_progress)
    results = {
        "run": config.name,
        "metacl": metacl.__version__,
        "protocol": {
            "data": config.data.open().describe(),
            "split": evaluation.split,
            **evaluation.shape.to_dict(),
            "episodes": evaluation.episodes,
            "seed": evaluation.seed,
            "step_sizes": "pretrained rows: the config's initial ones; meta-learned rows: the learned ones",
            "interval": "95 %, Student's t over episodes; differences are paired by episode",
        },
        **_tables([scores], scaled, [scaled_scores]),
        **answers,
        "chosen": [one.as_dict() for one in chosen if one.accuracies],
        "cost": {"evaluation_seconds": time.perf_counter() - started, "groups": config.workers.groups},
    }
    return _Measured(results, scores, scaled, scaled_scores)


def _tables(splits: Sequence[Scores], scaled: Sequence[ScaledSteps], of_scaled: Sequence[Scores]) -> dict[str, Any]:
    """All that is computed of the answers to the episodes of one class split or several."""
    tables = {
        "rows": as_dict(table(*splits)),
        "curves": [asdict(curve) for curve in curves(*splits)],
    }
    if scaled:
        tables["robustness"] = [asdict(one) for one in robustness(scaled, *of_scaled)]
    return tables


def _best_learned(rows: Sequence[RowResult]) -> Row:
    best = max((row for row in rows if row.method == META_LEARNED), key=lambda row: row.accuracy.mean)
    return Row(best.method, best.steps)


def _answers(config: RunConfig, evaluation: Evaluation, scores: Scores, row: Row) -> dict[str, Any]:
    """What a row got wrong, and two episodes of it."""
    source = config.data.open()
    return {
        "confusions": worst_confusions([(scores, source)], row, evaluation.shape),
        "examples": example_episodes(scores, row, source, evaluation.shape),
    }


def _training_cost(folder: RunFolder) -> dict[str, float]:
    """Sums over all steps of the run, earlier sessions included."""
    metrics = read_metrics(folder)
    return {
        "steps": len(metrics),
        "tasks": sum(line["tasks"] for line in metrics),
        "seconds": sum(line["seconds"] for line in metrics),
        "coordinator_seconds": sum(line["coordinator_seconds"] for line in metrics),
    }
