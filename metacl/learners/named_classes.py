"""A language model as a classifier that is asked and not trained: it tells classes apart by their names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from metacl.learners.base import Batch, Group, Learner, Params
from metacl.learners.label_words import LabelWords

BYTES, MASK = "utf8", "attention_mask"


class NamedClasses(Learner):
    """Class scores are `LabelWords.class_scores`, which no gradient goes through; the parameters are the model's own.

    A batch holds texts as they are, in UTF-8: what stands before a text in a prompt is known when it is asked.

    Parameters
    ----------
    model : LabelWords
        Texts may be as long as it has positions.
    names : N names of classes.
    """

    def __init__(self, model: LabelWords, names: Sequence[str]) -> None:
        self.model = model.with_long_texts()
        self.names = tuple(names)
        self.initial = model.initial
        self.vocabulary = model.vocabulary
        self.device = model.device
        self.base_parameters = model.base_parameters
        self.partition = model.partition

    def encode(self, examples: Sequence[str], labels: Sequence[int] | None) -> Batch:
        """B texts, and their classes."""
        rows = [torch.tensor(list(text.encode()), dtype=torch.uint8) for text in examples]
        masks = [torch.ones(len(row), dtype=torch.int64) for row in rows]
        inputs = {BYTES: pad_sequence(rows, batch_first=True), MASK: pad_sequence(masks, batch_first=True)}
        targets = None if labels is None else torch.tensor(labels, device=self.device)
        return Batch([Group(inputs, None)], torch.arange(len(rows)), targets)

    def texts(self, batch: Batch) -> list[str]:
        """The texts of a batch, in its order."""
        rows = [
            bytes(row[mask.bool()].tolist()).decode()
            for group in batch.groups
            for row, mask in zip(group.inputs[BYTES], group.inputs[MASK], strict=True)
        ]
        return [rows[place] for place in batch.order.tolist()]

    def outputs(self, params: Params, batch: Batch) -> Tensor:
        """The log-probability (B, N) of each name after each text, up to a constant for each text."""
        return self.model.class_scores(params, self.texts(batch), self.names)

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Mean cross-entropy, without a gradient."""
        assert batch.targets is not None, "a loss needs targets"
        return F.cross_entropy(self.outputs(params, batch), batch.targets)
