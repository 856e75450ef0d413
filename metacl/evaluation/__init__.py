"""Few-shot evaluation: protocol, baselines, metrics, statistics."""

from metacl.evaluation.answers import example_episodes, worst_confusions
from metacl.evaluation.completions import CompletionRow, completion_rows, completions, examples_said
from metacl.evaluation.curves import Curve, curves
from metacl.evaluation.few_shot import EpisodeScore, RowResult, Scores, as_dict, evaluate, table
from metacl.evaluation.memory import with_memory
from metacl.evaluation.methods import METHODS, AdaptationMethod, Row, chosen_methods, default_methods
from metacl.evaluation.perplexity import PerplexityRow, log_perplexities, perplexity_rows
from metacl.evaluation.protocols import PROTOCOLS, Protocol, Setting, named_protocol, on_class_splits
from metacl.evaluation.reasons import can_explain, with_reasons
from metacl.evaluation.robustness import Robustness, robustness, scaled_steps
from metacl.evaluation.statistics import (
    Difference,
    Estimate,
    bootstrap_interval,
    mean_interval,
    paired_difference,
    spread,
)
from metacl.evaluation.tuning import Chosen, choose

__all__ = [
    "METHODS",
    "PROTOCOLS",
    "AdaptationMethod",
    "Chosen",
    "CompletionRow",
    "Curve",
    "Difference",
    "EpisodeScore",
    "Estimate",
    "PerplexityRow",
    "Protocol",
    "Robustness",
    "Row",
    "RowResult",
    "Scores",
    "Setting",
    "as_dict",
    "bootstrap_interval",
    "can_explain",
    "choose",
    "chosen_methods",
    "completion_rows",
    "completions",
    "curves",
    "default_methods",
    "evaluate",
    "example_episodes",
    "examples_said",
    "log_perplexities",
    "mean_interval",
    "named_protocol",
    "on_class_splits",
    "paired_difference",
    "perplexity_rows",
    "robustness",
    "scaled_steps",
    "spread",
    "table",
    "with_memory",
    "with_reasons",
    "worst_confusions",
]
