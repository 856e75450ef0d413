"""For authors: does an estimator or an objective of one's own do what it says? Answered in seconds.

>>> from metacl.testing import check_estimator, check_objective
>>> print(check_estimator(MyEstimator()).verdict)                                           # doctest: +SKIP

The oracle is the plainest there is: central finite differences in float64 of the whole way from the
meta-parameters to the adapted query loss, on a model of a few dozen numbers. A class need not be registered.
"""

from metacl.testing.estimators import check_estimator
from metacl.testing.objectives import check_objective
from metacl.testing.oracle import CheckFailed, Report
from metacl.testing.tiny import LOOP, TinyLearner, spread

__all__ = ["LOOP", "CheckFailed", "Report", "TinyLearner", "check_estimator", "check_objective", "spread"]
