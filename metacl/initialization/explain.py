"""Why an adapted classifier gives a text its label: the tokens that count, and the examples it is nearest to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from captum.attr import IntegratedGradients
from torch import Tensor
from torch.nn.functional import normalize

from metacl.errors import ConfigError
from metacl.learners.text_classifier import TextClassifier

if TYPE_CHECKING:
    from metacl.initialization.adapt import AdaptedClassifier, Prediction

STEPS = 64
"""Points on the way from nothing to the text."""


@dataclass(frozen=True)
class Example:
    """A text that the model was adapted to, and how near it is: the cosine of the two feature vectors."""

    text: str
    label: str
    similarity: float


@dataclass(frozen=True)
class Explanation:
    """A prediction with its reasons.

    tokens : each token of the text with what it adds to the score of the label (a logit). Together they are the score
    less that of a text of as many padding tokens, up to `remainder`.
    examples : those the model was adapted to, the nearest first.
    """

    prediction: Prediction
    tokens: tuple[tuple[str, float], ...]
    remainder: float
    examples: tuple[Example, ...]


def explain(model: AdaptedClassifier, text: str, examples: int = 3) -> Explanation:
    """The reasons for one text.

    Tokens by integrated gradients along the line from a text of padding, whose special tokens stay (Sundararajan et al.
    2017, eq. 1; captum, Gauss-Legendre). Examples by the adapted features.

    Raises
    ------
    ConfigError
        The model is no text classifier, or its objective scores otherwise than the learner does.
    """
    learner = model.learner
    if not isinstance(learner, TextClassifier):
        raise ConfigError("--explain: only a text classifier can be explained.")
    (prediction,) = model.predict([text])
    target = model.labels.index(prediction.label)
    ids, mask = learner.token_ids(text)
    nothing = learner.without_words(ids)

    def score(embeddings: Tensor) -> Tensor:
        return learner.outputs_of_embeddings(model.params, embeddings, mask.expand(len(embeddings), -1))[:, target]

    there, baseline = (learner.embeddings(model.params, tokens).detach() for tokens in (ids, nothing))
    attributions = IntegratedGradients(score).attribute(there, baseline, n_steps=STEPS, method="gausslegendre")
    by_token = attributions.sum(-1)[0]
    with torch.no_grad():
        reached = float(score(there))
        difference = reached - float(score(baseline))
        predicted = model.config.objective.outputs(learner, model.params, learner.encode([text], None))[0, target]
    if abs(float(predicted) - reached) > 1e-3 * max(1.0, abs(reached)):
        raise ConfigError(
            f"--explain: {model.config.objective.registered_name} scores otherwise than its learner, and only the "
            f"learner's score can be explained."
        )
    names = learner.tokenizer.convert_ids_to_tokens(ids[0].tolist())
    counted = [
        (name, float(share))
        for name, share, same in zip(names, by_token, (ids == nothing)[0], strict=True)
        if not bool(same)
    ]
    return Explanation(
        prediction, tuple(counted), difference - sum(share for _, share in counted), _nearest(model, text, examples)
    )


def _nearest(model: AdaptedClassifier, text: str, count: int) -> tuple[Example, ...]:
    if not model.support:
        return ()
    with torch.no_grad():
        asked = _features(model, [text])
        known = _features(model, [known for known, _ in model.support])
    cosines = (known @ asked.T)[:, 0]
    best = cosines.argsort(descending=True, stable=True)[:count].tolist()
    examples = [(*model.support[place], float(cosines[place])) for place in best]
    return tuple(Example(text, label, similarity) for text, label, similarity in examples)


def _features(model: AdaptedClassifier, texts: Sequence[str]) -> Tensor:
    return normalize(model.learner.features(model.params, model.learner.encode(list(texts), None)), dim=-1)
