"""Meta-parameters measured on an executor that runs, and what results.json says of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import metacl
from metacl.api.progress import EvaluationProgress
from metacl.config import Evaluation, RunConfig
from metacl.coordination.executor import Executor
from metacl.coordination.worker import Meta
from metacl.evaluation import (
    AdaptationMethod,
    Row,
    RowResult,
    Scores,
    as_dict,
    can_explain,
    choose,
    curves,
    default_methods,
    evaluate,
    example_episodes,
    robustness,
    scaled_steps,
    table,
    with_memory,
    with_reasons,
    worst_confusions,
)
from metacl.evaluation.methods import META_LEARNED
from metacl.evaluation.robustness import ScaledSteps

VALIDATION_EPISODES = 30
"""Episodes of the validation classes that choose between a method's candidates."""


@dataclass(frozen=True)
class Measured:
    """What an evaluation found; scaled: what the methods of `scaled_steps` answered, {} if there are none."""

    results: dict[str, Any]
    scores: Scores
    scaled_steps: list[ScaledSteps]
    scaled: Scores


def measure(
    config: RunConfig,
    evaluation: Evaluation,
    executor: Executor,
    meta: Meta,
    progress: EvaluationProgress,
    methods: Sequence[AdaptationMethod] | None = None,
    explain: bool = False,
    factors: Sequence[float] = (),
) -> Measured:
    """Every method's answers to the same episodes, tuned on the validation classes before where it has candidates."""
    started = time.perf_counter()
    compared = methods or default_methods(evaluation.steps, config.learner.has_features)
    if any(len(method.candidates()) > 1 for method in compared):
        progress.note(f"tuning baselines on {VALIDATION_EPISODES} episodes of the validation classes")
    chosen = choose(executor, meta, compared, _validation(evaluation), progress.evaluation_progress)
    progress.note(
        f"evaluating {evaluation.shape.ways}-way {evaluation.shape.shots}-shot on {evaluation.episodes} episodes "
        f"of the {evaluation.split} classes"
    )
    measured = [one.method for one in chosen]
    scores = evaluate(executor, meta, measured, evaluation, progress.evaluation_progress)
    scores = with_memory(executor, meta, measured, evaluation, scores)
    rows = table(scores)
    best = best_learned(rows)
    answers = _answers(config, evaluation, scores, best)
    if explain and best.steps is not None and can_explain(config):
        answers["examples"] = with_reasons(
            executor, meta, list(scores), answers["examples"], evaluation.shape, best.steps
        )
    scaled = scaled_steps(factors, config.inner.steps or max(evaluation.steps)) if factors else []
    scaled_scores: Scores = {}
    if scaled:
        progress.note(f"the same episodes with inner step sizes times {', '.join(f'{one:g}' for one in factors)}")
        scaled_scores = evaluate(executor, meta, scaled, evaluation, progress.evaluation_progress)
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
        **tables([scores], scaled, [scaled_scores]),
        **answers,
        "chosen": [one.as_dict() for one in chosen if one.accuracies],
        "cost": {"evaluation_seconds": time.perf_counter() - started, "groups": config.workers.groups},
    }
    return Measured(results, scores, scaled, scaled_scores)


def _validation(evaluation: Evaluation) -> Evaluation:
    return evaluation.model_copy(update={"split": "valid", "episodes": VALIDATION_EPISODES})


def tables(splits: Sequence[Scores], scaled: Sequence[ScaledSteps], of_scaled: Sequence[Scores]) -> dict[str, Any]:
    """All that is computed of the answers to the episodes of one class split or several."""
    found = {
        "rows": as_dict(table(*splits)),
        "curves": [asdict(curve) for curve in curves(*splits)],
    }
    if scaled:
        found["robustness"] = [asdict(one) for one in robustness(scaled, *of_scaled)]
    return found


def best_learned(rows: Sequence[RowResult]) -> Row:
    """The meta-learned row that was most accurate: the one that examples and confusions are shown of."""
    best = max((row for row in rows if row.method == META_LEARNED), key=lambda row: row.accuracy.mean)
    return Row(best.method, best.steps)


def _answers(config: RunConfig, evaluation: Evaluation, scores: Scores, row: Row) -> dict[str, Any]:
    """What a row got wrong, and two episodes of it."""
    source = config.data.open()
    return {
        "confusions": worst_confusions([(scores, source)], row, evaluation.shape),
        "examples": example_episodes(scores, row, source, evaluation.shape),
    }
