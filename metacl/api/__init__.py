"""The whole way from a config to a measured initialization, as functions.

`train` is what ``metacl train`` does: outer loop, initialization, closing evaluation, report. `evaluate`
measures an initialization on any labelled data with any shape of episode.
"""

from metacl.api.class_splits import evaluate_on_splits
from metacl.api.comparing import compared_methods
from metacl.api.evaluating import evaluate
from metacl.api.executors import running_executor
from metacl.api.exporting import export_initialization
from metacl.api.measuring import VALIDATION_EPISODES
from metacl.api.metrics import read_metrics
from metacl.api.perplexity import evaluate_perplexity
from metacl.api.progress import EvaluationProgress
from metacl.api.starting import check_data, starting_point
from metacl.api.streams import continual
from metacl.api.training import RunResult, train

__all__ = [
    "VALIDATION_EPISODES",
    "EvaluationProgress",
    "RunResult",
    "check_data",
    "compared_methods",
    "continual",
    "evaluate",
    "evaluate_on_splits",
    "evaluate_perplexity",
    "export_initialization",
    "read_metrics",
    "running_executor",
    "starting_point",
    "train",
]
