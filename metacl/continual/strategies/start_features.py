"""The start's own features of training examples, which no experience changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from metacl.continual.experience import Address
from metacl.continual.model import Model
from metacl.continual.moment import Moment
from metacl.continual.pool import Minibatch
from metacl.errors import ConfigError

ENCODED_TOGETHER = 256


def needs_features(name: str, model: Model) -> None:
    """Raises `ConfigError` for a learner without feature vectors."""
    if model.learner.width is None:
        raise ConfigError(
            f"strategies: {name} looks at feature vectors, and a {type(model.learner).__name__} has none. Leave it "
            f"out, or set learner=text_classifier."
        )


def start_features(moment: Moment, addresses: Sequence[Address]) -> Iterator[tuple[Minibatch, Tensor]]:
    """Training examples in parts, and the feature vectors (B, D) of each part by the parameters of the start."""
    for part in moment.minibatches(addresses, ENCODED_TOGETHER):
        with torch.no_grad():
            features = moment.model.features(moment.start, part.batch)
        yield part, features
