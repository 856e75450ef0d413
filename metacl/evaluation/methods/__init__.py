"""Ways to adapt to an episode's support set, one a file, compared on the same episodes."""

from metacl.evaluation.methods.base import (
    FROZEN,
    META_LEARNED,
    METHODS,
    PRETRAINED,
    AdaptationMethod,
    Examples,
    Predictor,
    Row,
    Scene,
)
from metacl.evaluation.methods.choosing import chosen_methods, default_methods
from metacl.evaluation.methods.experts import Experts
from metacl.evaluation.methods.fine_tuning import FineTunedStart, FineTuning
from metacl.evaluation.methods.in_context import InContext, ZeroShotPrompt
from metacl.evaluation.methods.inner_steps import InnerSteps, MetaLearned, OtherStarts, Pretrained
from metacl.evaluation.methods.label_names import LabelNames
from metacl.evaluation.methods.logistic_regression import LogisticRegression, MetaLearnedLogisticRegression
from metacl.evaluation.methods.nearest_neighbour import NearestNeighbour
from metacl.evaluation.methods.prototypes import FrozenPrototypes
from metacl.evaluation.methods.retrieval import Retrieval

__all__ = [
    "FROZEN",
    "META_LEARNED",
    "METHODS",
    "PRETRAINED",
    "AdaptationMethod",
    "Examples",
    "Experts",
    "FineTunedStart",
    "FineTuning",
    "FrozenPrototypes",
    "InContext",
    "InnerSteps",
    "LabelNames",
    "LogisticRegression",
    "MetaLearned",
    "MetaLearnedLogisticRegression",
    "NearestNeighbour",
    "OtherStarts",
    "Predictor",
    "Pretrained",
    "Retrieval",
    "Row",
    "Scene",
    "ZeroShotPrompt",
    "chosen_methods",
    "default_methods",
]
