"""The class means of frozen features: nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch.nn.functional import normalize

from metacl.evaluation.methods.base import FROZEN, METHODS, AdaptationMethod, Predictor, Row, Scene
from metacl.objectives import class_means


@METHODS.register("frozen_prototypes")
class FrozenPrototypes(AdaptationMethod):
    """Cosine similarity to the class means of the pretrained features (Snell et al. 2017, eq. 1).

    temperature : cosines are divided by it, which makes probabilities of them and changes no answer.
    """

    temperature: float = 0.1
    needs_features: ClassVar[bool] = True

    def rows(self) -> list[Row]:
        """One."""
        return [Row(FROZEN, None)]

    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """The means of unit-length support features, themselves made unit length."""
        support = normalize(scene.frozen.of(scene.support), dim=-1)
        means = normalize(class_means(support, scene.targets, scene.ways), dim=-1)
        (row,) = self.rows()
        yield row, lambda examples: normalize(scene.frozen.of(examples), dim=-1) @ means.T / self.temperature
