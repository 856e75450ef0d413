"""A pretrained text encoder with a linear head that is passed in: N-way classification for any N.

The head is not the learner's: an objective starts it (from zeros, meta-learned, or from the class means)
and the inner loop adapts it like any other parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor
from transformers import AutoModel

from metacl.learners.base import CPU, LEARNERS, Batch, Group, Params
from metacl.learners.engine import Engine
from metacl.learners.transformer import TransformerConfig, TransformerLearner


@LEARNERS.register("text_classifier")
class TextClassifierConfig(TransformerConfig):
    """A Hugging Face encoder, pooled to one vector a text, with an N-way linear head.

    pooling : how token vectors become one. normalize : scale features to unit length.
    logit_scale : the constant that head outputs are multiplied by (an inverse temperature).
    """

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = True
    logit_scale: PositiveFloat = 10.0

    def build(self, seed: int, device: torch.device = CPU, engine: Engine | None = None) -> TextClassifier:
        """Load the encoder and its tokenizer, freeze it, attach the adapter."""
        return TextClassifier(self, seed, device, engine)


class TextClassifier(TransformerLearner):
    """See `TextClassifierConfig`."""

    def __init__(self, config: TextClassifierConfig, seed: int, device: torch.device, engine: Engine | None) -> None:
        super().__init__(config, AutoModel, seed, device, engine)
        self.config = config
        self.width = self.adapted.model.config.hidden_size

    def encode(self, texts: Sequence[str], labels: Sequence[int] | None) -> Batch:
        """Tokenize B texts (cut at `max_length`, padded by groups of similar length), run the frozen layers once."""
        tokens = self.tokenizer(list(texts), truncation=True, max_length=self.config.max_length)["input_ids"]
        _, groups, order = self.groups(tokens)
        targets = None if labels is None else torch.tensor(labels, device=self.device)
        return Batch(groups, order, targets)

    def features(self, params: Params, batch: Batch) -> Tensor:
        """Pooled (and normalized) encoder outputs, (B, D)."""
        bound = self.bound(params)
        return self.ranks.collect(torch.cat([self._pooled(bound, group) for group in batch.groups]))[batch.order]

    def _pooled(self, bound: Params, group: Group) -> Tensor:
        hidden = self.forward(bound, group).last_hidden_state
        if self.config.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            mask = group.inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
        return F.normalize(pooled, dim=-1) if self.config.normalize else pooled

    def outputs(self, params: Params, batch: Batch) -> Tensor:
        """logit_scale · (features · Wᵀ + b), (B, N), with W = head.weight (N, D) and b = head.bias (N,)."""
        return self.config.logit_scale * F.linear(
            self.features(params, batch), params["head.weight"], params["head.bias"]
        )

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Mean cross-entropy."""
        assert batch.targets is not None, "a loss needs targets"
        return F.cross_entropy(self.outputs(params, batch), batch.targets)
