"""The baseline without training: the nearest mean of the start's features (Mensink et al. 2013, eq. 2).

Class means of frozen features are exact whatever comes in between, so nothing is forgotten, and nothing is learned.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metacl.continual.experience import Address, Stream
from metacl.continual.model import Model
from metacl.continual.moment import Moment
from metacl.continual.strategies.base import STRATEGIES, State, Strategy
from metacl.continual.strategies.lwf import needs_classes
from metacl.continual.strategies.start_features import features_of_test, needs_features, start_features
from metacl.learners.base import Batch, Params

SUMS, COUNTS = "sums", "counts"


@STRATEGIES.register("nearest_class_mean")
class NearestClassMean(Strategy):
    """Retrieval by the nearest class mean in the start's features. Nothing is trained."""

    def check(self, model: Model, stream: Stream) -> None:
        """Means of features, for classes."""
        needs_features("nearest_class_mean", model)
        needs_classes("nearest_class_mean", model)

    def training_set(self, moment: Moment, addresses: list[Address], state: State) -> list[Address]:
        """None."""
        return []

    def end(self, moment: Moment, params: Params, addresses: list[Address], state: State) -> tuple[Params, State]:
        """Sums and counts of each class."""
        found, one_hots = [], []
        for part, features in start_features(moment, moment.pool.stream.train_addresses(moment.experience)):
            assert part.batch.targets is not None
            one_hot = torch.nn.functional.one_hot(part.batch.targets, moment.model.classes).to(features.dtype)
            found.append(one_hot.T @ features)
            one_hots.append(one_hot.sum(0))
        sums, counts = torch.stack(found).sum(0), torch.stack(one_hots).sum(0)
        if SUMS in state:
            sums, counts = sums + state[SUMS], counts + state[COUNTS]
        return params, {SUMS: sums, COUNTS: counts}

    def predict(self, moment: Moment, params: Params, batch: Batch, state: State) -> Tensor | None:
        """−‖f − mean‖²; minus infinity for classes never seen."""
        if SUMS not in state:
            return None
        means = state[SUMS] / state[COUNTS].clamp(min=1).unsqueeze(1)
        features = features_of_test(moment, batch)
        distance = torch.cdist(features, means, compute_mode="donot_use_mm_for_euclid_dist").square()
        return (-distance).masked_fill(state[COUNTS] == 0, -torch.inf)

    def grown(self, state: State, start: Params) -> State:
        """Rows for the new classes."""
        more = len(start["head.bias"]) - len(state[COUNTS])
        pad = torch.nn.functional.pad
        return {SUMS: pad(state[SUMS], (0, 0, 0, more)), COUNTS: pad(state[COUNTS], (0, more))}
