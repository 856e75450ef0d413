"""Estimators of the meta-gradient, one a file. Importing this registers them."""

from metacl.metagradients.annealed_order import AnnealedOrder
from metacl.metagradients.base import (
    ESTIMATORS,
    InnerLoopDiverged,
    InnerProblem,
    MetaGradient,
    MetaGradientResult,
    adapt,
    plain_gradient,
    trajectory,
)
from metacl.metagradients.finite_difference import FiniteDifference
from metacl.metagradients.first_order import FirstOrder
from metacl.metagradients.implicit import Implicit
from metacl.metagradients.kinks import kinks
from metacl.metagradients.reptile import Reptile
from metacl.metagradients.reverse import Reverse
from metacl.metagradients.sama import SAMA
from metacl.metagradients.sharpness_aware import SharpnessAware
from metacl.metagradients.side_by_side import estimate_side_by_side
from metacl.metagradients.unrolled import Unrolled

__all__ = [
    "ESTIMATORS",
    "SAMA",
    "AnnealedOrder",
    "FiniteDifference",
    "FirstOrder",
    "Implicit",
    "InnerLoopDiverged",
    "InnerProblem",
    "MetaGradient",
    "MetaGradientResult",
    "Reptile",
    "Reverse",
    "SharpnessAware",
    "Unrolled",
    "adapt",
    "estimate_side_by_side",
    "kinks",
    "plain_gradient",
    "trajectory",
]
