"""The features that the pretrained model gives a text, computed once a text.

Every baseline that trains nothing in the model reads them. A text that nobody announced goes through the model alone,
so that its features do not depend on the texts beside it in a batch, nor on which episode asked first. Whoever reads
features is counted the tokens of their texts, as if they were computed for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from metacl.coordination.worker import Worker
from metacl.evaluation.examples import Examples
from metacl.learners.token_count import TokenCount, counting
from metacl.learners.transformer import TransformerLearner

BATCH = 64
"""Texts that go through the model together when many are encoded ahead."""


class FrozenFeatures:
    """A worker's memory of features. Arrays, which are no keys, are computed each time.

    Parameters
    ----------
    worker : Worker
        Whose learner and initial parameters give them.
    """

    def __init__(self, worker: Worker) -> None:
        self._learner = worker.learner.without_prompt()
        self._initial = {name: tensor.to(worker.learner.device) for name, tensor in worker.initial.items()}
        self._known: dict[str, Tensor] = {}
        self._tokens: dict[str, int] = {}

    @classmethod
    def kept_by(cls, worker: Worker) -> FrozenFeatures:
        """Those of this worker, which last as long as it."""
        if worker not in _KEPT:
            _KEPT[worker] = cls(worker)
        return _KEPT[worker]

    @torch.no_grad()
    def of(self, examples: Examples) -> Tensor:
        """Features (B, D) of B examples."""
        if not all(isinstance(text, str) for text in examples.inputs):
            return self._learner.features(self._initial, examples.batch)
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
            found = self._learner.features(self._initial, self._learner.encode(texts, None))
        self._known.update(zip(texts, found, strict=True))
        if isinstance(self._learner, TransformerLearner):
            self._tokens.update(zip(texts, self._learner.token_counts(texts), strict=True))


_KEPT: WeakKeyDictionary[Worker, FrozenFeatures] = WeakKeyDictionary()
