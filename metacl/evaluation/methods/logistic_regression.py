"""A linear classifier on frozen features, the strongest of the cheap baselines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from sklearn.linear_model import LogisticRegression as Sklearn
from torch.nn.functional import normalize

from metacl.evaluation.methods.base import METHODS, AdaptationMethod, Examples, Predictor, Row, Scene


@METHODS.register("logistic_regression")
class LogisticRegression(AdaptationMethod):
    """Multinomial logistic regression on unit-length pretrained features (Tian et al. 2020, "Rethinking", sec. 4).

    c : scikit-learn's C, the inverse of the weight penalty; null for that of `cs` which does best on episodes of the
    validation classes. iterations : of L-BFGS, at most.
    """

    c: PositiveFloat | None = None
    cs: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0, 10.0, 100.0)
    iterations: PositiveInt = 1000
    needs_features: ClassVar[bool] = True

    def candidates(self) -> list[AdaptationMethod]:
        """One a penalty, if none is given."""
        return [self] if self.c is not None else [self.model_copy(update={"c": c}) for c in self.cs]

    def chosen_option(self) -> tuple[str, float] | None:
        """C."""
        return None if self.c is None else ("C", self.c)

    def rows(self) -> list[Row]:
        """One."""
        return [Row("logistic regression", None)]

    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """Fit by scikit-learn, in float64."""
        assert self.c is not None, "one of the candidates adapts"
        support = normalize(scene.frozen.of(scene.support), dim=-1)
        model = Sklearn(C=self.c, max_iter=self.iterations).fit(
            support.double().cpu().numpy(), scene.targets.cpu().numpy()
        )

        def scores(examples: Examples) -> torch.Tensor:
            features = normalize(scene.frozen.of(examples), dim=-1)
            found = torch.as_tensor(model.decision_function(features.double().cpu().numpy()), device=features.device)
            # With two classes scikit-learn gives the log-odds of the second.
            return found if found.ndim == 2 else torch.stack([-found / 2, found / 2], dim=-1)

        (row,) = self.rows()
        yield row, scores
