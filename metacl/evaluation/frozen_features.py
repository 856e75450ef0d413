"""The features that a model whose parameters stay gives a text, computed once a text.

Every baseline that trains nothing in the model reads those of the pretrained one. A text that nobody announced goes
through the model alone, so that its features do not depend on the texts beside it in a batch, nor on which episode
asked first. Whoever reads features is counted the tokens of their texts, as if they were computed for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from metacl.coordination.flat import Flat, checksum
from metacl.coordination.worker import Worker
from metacl.evaluation.examples import Examples
from metacl.learners.base import Learner, Params
from metacl.learners.token_count import TokenCount, counting
from metacl.learners.transformer import TransformerLearner

BATCH = 64
"""Texts that go through the model together when many are encoded ahead."""


class FrozenFeatures:
    """A memory of features. Arrays, which are no keys, are computed each time.

    Parameters
    ----------
    learner, params
        What gives them. Parameters that no feature depends on, a head's or step sizes, may be among these.
    """

    def __init__(self, learner: Learner, params: Params) -> None:
        self._learner = learner
        self._params = params
        self._known: dict[str, Tensor] = {}
        self._tokens: dict[str, int] = {}

    @classmethod
    def pretrained(cls, worker: Worker) -> FrozenFeatures:
        """Those of a worker's model before training, without a prompt; nothing is known yet."""
        learner = worker.learner
        return cls(learner.without_prompt(), {name: t.to(learner.device) for name, t in worker.initial.items()})

    @classmethod
    def learned(cls, worker: Worker, meta: Flat) -> FrozenFeatures:
        """Those of what a worker's run learned, (P,), before any inner step; nothing is known yet."""
        return cls(worker.learner, worker.parameters(meta))

    @torch.no_grad()
    def of(self, examples: Examples) -> Tensor:
        """Features (B, D) of B examples."""
        if not all(isinstance(text, str) for text in examples.inputs):
            return self._learner.features(self._params, examples.batch)
        return self.of_texts(examples.inputs)

    @torch.no_grad()
    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """Features (B, D) of B texts."""
        for text in texts:
            if text not in self._known:
                self._encode([text])
        if self._tokens and (count := counting()) is not None:
            count.add(sum(self._tokens[text] for text in texts))
        return torch.stack([self._known[text] for text in texts])

    @torch.no_grad()
    def encode_ahead(self, texts: Iterable[str]) -> None:
        """Compute those of many texts in batches, in a third of the time that they take one at a time.

        Batches are made of texts of similar length and depend on what is asked for and not known yet; but for rounding,
        features are those that a text has alone.
        """
        unknown = sorted(set(texts) - self._known.keys(), key=lambda text: (len(text), text))
        for begin in range(0, len(unknown), BATCH):
            self._encode(unknown[begin : begin + BATCH])

    def _encode(self, texts: Sequence[str]) -> None:
        with TokenCount():  # of nobody: tokens count when features are read
            found = self._learner.features(self._params, self._learner.encode(texts, None))
        self._known.update(zip(texts, found, strict=True))
        if isinstance(self._learner, TransformerLearner):
            self._tokens.update(zip(texts, self._learner.token_counts(texts), strict=True))


class KeptFeatures:
    """The memories that last as long as a worker: of the pretrained model, and of the learned parameters asked last."""

    def __init__(self, worker: Worker) -> None:
        self.pretrained = FrozenFeatures.pretrained(worker)
        self._learned: tuple[str, FrozenFeatures] | None = None

    @classmethod
    def by(cls, worker: Worker) -> KeptFeatures:
        """Of this worker."""
        if worker not in _KEPT:
            _KEPT[worker] = cls(worker)
        return _KEPT[worker]

    def learned(self, worker: Worker, meta: Flat) -> FrozenFeatures:
        """Of its learned parameters (P,), for as long as these are asked for."""
        version = checksum(meta)
        if self._learned is None or self._learned[0] != version:
            self._learned = version, FrozenFeatures.learned(worker, meta)
        return self._learned[1]


_KEPT: WeakKeyDictionary[Worker, KeptFeatures] = WeakKeyDictionary()
