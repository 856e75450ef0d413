"""A linear classifier on features: frozen ones, which is the strongest of the cheap baselines, or learned ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from sklearn.linear_model import LogisticRegression as Sklearn
from torch import Tensor
from torch.nn.functional import normalize

from metacl.evaluation.methods.base import META_LEARNED, METHODS, AdaptationMethod, Examples, Predictor, Row, Scene
from metacl.learners.base import Params


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

    def features(self, scene: Scene, examples: Examples) -> Tensor:
        """(B, D) of B examples."""
        return scene.frozen.of(examples)

    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """Fit by scikit-learn, in float64."""
        assert self.c is not None, "one of the candidates adapts"
        support = normalize(self.features(scene, scene.support), dim=-1)
        model = Sklearn(C=self.c, max_iter=self.iterations).fit(
            support.double().cpu().numpy(), scene.targets.cpu().numpy()
        )

        def scores(examples: Examples) -> Tensor:
            features = normalize(self.features(scene, examples), dim=-1)
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

    reads_batches: ClassVar[bool] = True

    def rows(self) -> list[Row]:
        """One."""
        return [Row(f"{META_LEARNED}, logistic regression", None)]

    def start(self, scene: Scene) -> Params:
        """What was learned."""
        return scene.worker.parameters(scene.meta)

    @torch.no_grad()
    def features(self, scene: Scene, examples: Examples) -> Tensor:
        """Those that the learned initialization gives, before any inner step."""
        return scene.worker.learner.features(self.start(scene), examples.batch)
