"""ANML (Beaulieu et al. 2020, "Learning to Continually Learn", sec. 2): learned gates on the features, and OML's task.

The paper's gates come from a second network that sees the input; here from a learned linear layer on the features
themselves, g = 2 σ(G f + b), f ⊙ g, which costs D² numbers and needs no second model. Gates start at one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metacl.errors import ConfigError
from metacl.learners.base import Batch, Learner, Params
from metacl.objectives.base import OBJECTIVES
from metacl.objectives.oml import OML


@OBJECTIVES.register("anml")
class ANML(OML):
    """OML with neuromodulation: gates decide which features a step of the head reads, and so which weights it moves."""

    def learned(self, learner: Learner, ways: int) -> Params:
        """OML's and the gates' layer. Raises `ConfigError` for a learner without features."""
        if learner.width is None:
            raise ConfigError(
                f"objective: anml gates feature vectors, and a {type(learner).__name__} has none. Set objective=oml."
            )
        gates = {"gate.weight": torch.zeros(learner.width, learner.width), "gate.bias": torch.zeros(learner.width)}
        return {**super().learned(learner, ways), **gates}

    def outputs(self, learner: Learner, params: Params, batch: Batch) -> Tensor:
        """The head on gated features, (B, N)."""
        features = learner.features(params, batch)
        gates = 2 * torch.sigmoid(torch.nn.functional.linear(features, params["gate.weight"], params["gate.bias"]))
        return learner.scores(params, features * gates)

    def loss(self, learner: Learner, params: Params, batch: Batch) -> Tensor:
        """Mean cross-entropy."""
        assert batch.targets is not None
        return torch.nn.functional.cross_entropy(self.outputs(learner, params, batch), batch.targets)
