"""The label of the most similar support example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch.nn.functional import normalize

from metacl.evaluation.methods.base import METHODS, AdaptationMethod, Examples, Predictor, Row, Scene


@METHODS.register("nearest_neighbour")
class NearestNeighbour(AdaptationMethod):
    """A class scores the cosine of its most similar support example, by pretrained features (Cover & Hart 1967).

    temperature : cosines are divided by it, which makes probabilities of them and changes no answer.
    """

    temperature: float = 0.1
    needs_features: ClassVar[bool] = True

    def rows(self) -> list[Row]:
        """One."""
        return [Row("nearest neighbour", None)]

    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """Nothing but the support's features is kept."""
        support = normalize(scene.frozen.of(scene.support), dim=-1)
        targets = scene.targets

        def scores(examples: Examples) -> torch.Tensor:
            cosines = normalize(scene.frozen.of(examples), dim=-1) @ support.T
            by_class = [cosines[:, targets == label].amax(-1) for label in range(scene.ways)]
            return torch.stack(by_class, dim=-1) / self.temperature

        (row,) = self.rows()
        yield row, scores
