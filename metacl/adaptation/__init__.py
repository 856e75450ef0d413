"""The inner loop: differentiable optimizers and step sizes that can be learned."""

from metacl.adaptation.inner_loop import InnerLoop, StepSizes
from metacl.adaptation.optimizers import INNER_OPTIMIZERS, SGD, Adam, AdamW, InnerOptimizer, State
from metacl.adaptation.preconditioners import PRECONDITIONERS, MetaCurvature, Preconditioner

__all__ = [
    "INNER_OPTIMIZERS",
    "PRECONDITIONERS",
    "SGD",
    "Adam",
    "AdamW",
    "InnerLoop",
    "InnerOptimizer",
    "MetaCurvature",
    "Preconditioner",
    "State",
    "StepSizes",
]
