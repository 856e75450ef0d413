"""A softmax gate that is learned in closed form and forgets nothing: linear discriminant analysis from running sums.

All that its fit depends on is, of each class, the sum and the number of its feature vectors, and over all of them the
sum of their outer products. These only add up, so after any number of experiences it is, to rounding, the gate fitted
on the features of all of them at once, and no example is stored (Hayes & Kanan 2020, "Lifelong Machine Learning with
Deep Streaming Linear Discriminant Analysis"). Its posterior is a softmax of linear scores.
"""

from __future__ import annotations

import torch
from torch import Tensor

NO_SPREAD = 1e-12
"""The least mean variance: where every class has one example alone, the nearest mean decides."""


def log_posterior(
    features: Tensor, sums: Tensor, counts: Tensor, products: Tensor, shrinkage: float | None = None
) -> Tensor:
    """Log-probability (B, E) of E classes for B feature vectors (B, D), in float64.

    Parameters
    ----------
    sums, counts : (E, D) and (E,), of the feature vectors of each class; every class has some.
    products : (D, D), the sum of x xᵀ over all of them.
    shrinkage : of the covariance S within classes towards tr(S)/D · I, 0 to 1; null for `oracle_approximating` of it.
    """
    counts = counts.double()
    total = counts.sum()
    means = sums.double() / counts.unsqueeze(1)
    covariance = (products.double() - (means.T * counts) @ means) / total
    level = covariance.trace().clamp(min=NO_SPREAD) / len(covariance)
    share = oracle_approximating(covariance, total) if shrinkage is None else torch.tensor(shrinkage)
    covariance = (1 - share) * covariance + share * level * torch.eye(len(covariance)).to(covariance)
    weights = torch.linalg.solve(covariance, means.T)  # (D, E)
    biases = (counts / total).log() - (means * weights.T).sum(1) / 2
    return (features.double() @ weights + biases).log_softmax(-1)


def oracle_approximating(covariance: Tensor, examples: Tensor) -> Tensor:
    """How far to shrink a covariance (D, D) of n examples, 0 to 1.

    Chen et al. 2010, "Shrinkage Algorithms for MMSE Covariance Estimation", eq. 23, in the form of scikit-learn's
    `OAS`, which leaves out the terms in 2/D.
    """
    size = len(covariance)
    spread, level = covariance.square().mean(), (covariance.trace() / size).square()
    missing = (examples + 1) * (spread - level / size)
    return torch.where(missing > 0, ((spread + level) / missing).clamp(max=1), 1.0)
