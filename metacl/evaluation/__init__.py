"""Few-shot evaluation: protocol, baselines, statistics."""

from metacl.evaluation.few_shot import RowResult, as_dict, evaluate
from metacl.evaluation.methods import FrozenPrototypes, InnerSteps, Method, default_methods
from metacl.evaluation.perplexity import PerplexityRow, log_perplexities, perplexity_rows
from metacl.evaluation.statistics import Estimate, mean_interval, paired_difference

__all__ = [
    "Estimate",
    "FrozenPrototypes",
    "InnerSteps",
    "Method",
    "PerplexityRow",
    "RowResult",
    "as_dict",
    "default_methods",
    "evaluate",
    "log_perplexities",
    "mean_interval",
    "paired_difference",
    "perplexity_rows",
]
