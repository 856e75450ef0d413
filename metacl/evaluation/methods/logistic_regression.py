"""A linear classifier on features: frozen ones, which is the strongest of the cheap baselines, or learned ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import normalize

from metacl.evaluation.frozen_features import FrozenFeatures
from metacl.evaluation.methods.base import META_LEARNED, METHODS, AdaptationMethod, Examples, Predictor, Row, Scene
from metacl.metagradients import InnerLoopDiverged


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

    def features(self, scene: Scene) -> FrozenFeatures:
        """What it reads."""
        return scene.frozen

    def prepare(self, scene: Scene) -> None:
        """Features serve every episode with the same texts; and the import, which takes long, all of them."""
        import sklearn.linear_model  # noqa: F401

        self.features(scene).of(scene.support)

    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """Fit by scikit-learn, in float64."""
        from sklearn.linear_model import LogisticRegression as Sklearn

        assert self.c is not None, "one of the candidates adapts"
        known = self.features(scene)
        support = normalize(known.of(scene.support), dim=-1)
        if not bool(torch.isfinite(support).all()):
            raise InnerLoopDiverged([math.nan])
        model = Sklearn(C=self.c, max_iter=self.iterations).fit(
            support.double().cpu().numpy(), scene.targets.cpu().numpy()
        )

        def scores(examples: Examples) -> Tensor:
            features = normalize(known.of(examples), dim=-1)
            found = torch.as_tensor(model.decision_function(features.double().cpu().numpy()), device=features.device)
            # With two classes scikit-learn gives the log-odds of the second.
            return found if found.ndim == 2 else torch.stack([-found / 2, found / 2], dim=-1)

        (row,) = self.rows()
        yield row, scores


@METHODS.register("meta_learned_logistic_regression")
class MetaLearnedLogisticRegression(LogisticRegression):
    """Logistic regression on the features of the learned initialization, in the place of its inner loop.

    A convex head on meta-learned features (Lee et al. 2019, "MetaOptNet"; Bertinetto et al. 2019, "R2-D2"), without
    training through it.
    """

    def rows(self) -> list[Row]:
        """One."""
        return [Row(f"{META_LEARNED}, logistic regression", None)]

    def features(self, scene: Scene) -> FrozenFeatures:
        """Those that the learned initialization gives, before any inner step."""
        return scene.learned
