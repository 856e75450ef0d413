"""Zero-shot: what the names of the classes say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import normalize

from metacl.evaluation.methods.base import METHODS, AdaptationMethod, Predictor, Row, Scene
from metacl.tasks.names_in_words import in_words


@METHODS.register("label_names")
class LabelNames(AdaptationMethod):
    """Cosine similarity of a text to the name of each class, by pretrained features; the support is not read.

    temperature : cosines are divided by it, which makes probabilities of them and changes no answer.
    """

    temperature: float = 0.1
    needs_features: ClassVar[bool] = True
    needs_class_names: ClassVar[bool] = True

    def rows(self) -> list[Row]:
        """One."""
        return [Row("label names, zero-shot", None)]

    def prepare(self, scene: Scene) -> None:
        """Encode the names."""
        _features_of_names(scene)

    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """Nothing but the names is read."""
        names = normalize(_features_of_names(scene), dim=-1)
        (row,) = self.rows()
        yield row, lambda examples: normalize(scene.frozen.of(examples), dim=-1) @ names.T / self.temperature


def _features_of_names(scene: Scene) -> Tensor:
    return scene.frozen.of_texts([in_words(name) for name in scene.class_names])
