"""The features that the pretrained model gives a text, computed once a text.

Every baseline that trains nothing in the model reads them. A text goes through the model alone, so that its features
do not depend on the texts beside it in a batch, nor on which episode asked first.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from metacl.coordination.worker import Worker
from metacl.evaluation.examples import Examples


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
                (self._known[text],) = self._learner.features(self._initial, self._learner.encode([text], None))
        return torch.stack([self._known[text] for text in texts])


_KEPT: WeakKeyDictionary[Worker, FrozenFeatures] = WeakKeyDictionary()
