"""The start's own features, which no experience changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from metacl.continual.experience import Address
from metacl.continual.model import Model
from metacl.continual.moment import Moment
from metacl.continual.pool import Minibatch
from metacl.errors import ConfigError
from metacl.learners.base import Batch

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


def features_of_test(moment: Moment, batch: Batch) -> Tensor:
    """The same of a test's batch (B, D), computed once: a pool gives the same batch whenever its test is asked."""
    known = _TESTS.setdefault(moment.model, {})
    if id(batch) not in known:
        with torch.no_grad():
            known[id(batch)] = batch, moment.model.features(moment.start, batch)
    return known[id(batch)][1]


_TESTS: WeakKeyDictionary[Model, dict[int, tuple[Batch, Tensor]]] = WeakKeyDictionary()
"""By model and the batch's identity, which is its own while it is held here."""
