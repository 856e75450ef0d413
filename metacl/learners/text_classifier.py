"""A pretrained text encoder with a linear head that is passed in: N-way classification for any N.

The head is not the learner's: an objective starts it (from zeros, meta-learned, or from the class means)
and the inner loop adapts it like any other parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor
from transformers import AutoModel

from metacl.errors import ConfigError
from metacl.learners.base import CPU, LEARNERS, Batch, Group, Params
from metacl.learners.engine import Engine
from metacl.learners.masking import masked_places
from metacl.learners.packing import pack
from metacl.learners.transformer import TransformerConfig, TransformerLearner

PACKING_TOLERANCE = 1e-3
"""How far features may be moved by the rounding of bfloat16, with texts in one row instead of several."""


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
    packs: ClassVar[bool] = True

    def build(self, seed: int, device: torch.device = CPU, engine: Engine | None = None) -> TextClassifier:
        """Load the encoder and its tokenizer, freeze it, attach the adapter."""
        return TextClassifier(self, seed, device, engine)


class TextClassifier(TransformerLearner):
    """See `TextClassifierConfig`."""

    def __init__(self, config: TextClassifierConfig, seed: int, device: torch.device, engine: Engine | None) -> None:
        super().__init__(config, AutoModel, seed, device, engine)
        self.config = config
        self.width = self.adapted.model.config.hidden_size
        if config.padding == "packed" and device.type != "meta":
            self._check_packing()

    def encode(self, texts: Sequence[str], labels: Sequence[int] | None) -> Batch:
        """Tokenize B texts (cut at `max_length`), lay them out as `padding` says, run the frozen layers once."""
        tokens = self.tokenizer(list(texts), truncation=True, max_length=self.config.max_length)["input_ids"]
        _, groups, order = self.groups(tokens)
        targets = None if labels is None else torch.tensor(labels, device=self.device)
        return Batch(groups, order, targets)

    def laid_out(self, tokens: list[list[int]], length: int) -> Group:
        """Several texts in a row where `padding` is "packed", else one."""
        return self._packed(tokens) if self.config.padding == "packed" else super().laid_out(tokens, length)

    def _packed(self, tokens: list[list[int]]) -> Group:
        packed = pack(tokens, self.config.max_length)
        names = ("input_ids", "position_ids", "attention_mask")
        group = self.with_prefix({name: getattr(packed, name) for name in names})
        weights = packed.first_weights() if self.config.pooling == "cls" else packed.mean_weights()
        return replace(group, pool=weights.to(self.device))

    def _check_packing(self) -> None:
        """Raise `ConfigError` if texts that share a row see each other, or are pooled otherwise than alone."""
        tokens = [self.tokenizer(text)["input_ids"][: self.config.max_length // 2] for text in ("a b", "c", "d e f")]
        bound = self.bound({name: tensor.to(self.device) for name, tensor in self.initial.items()})
        try:
            with torch.no_grad():
                shared = self._pooled(bound, self._packed(tokens))
                one = super().laid_out
                alone = torch.cat([self._pooled(bound, one([ids], len(ids))) for ids in tokens])
            distance = float((shared - alone).abs().max())
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            raise ConfigError(
                f"learner.padding: {self.config.model} cannot run packed texts ({str(error).splitlines()[0]}). "
                f"Set learner.padding=groups, or max_length for compiled estimators."
            ) from None
        if not distance <= PACKING_TOLERANCE:
            raise ConfigError(
                f"learner.padding: packed texts get other features than alone in {self.config.model} (by "
                f"{distance:.1e}). Set learner.padding=groups, or max_length for compiled estimators."
            )

    def tokens_in(self, group: Group) -> Tensor:
        """In packed rows each text has one token at position 0, where padding is, too."""
        if group.pool is None:
            return super().tokens_in(group)
        return (group.inputs["position_ids"] > 0).sum() + len(group.pool)

    def features(self, params: Params, batch: Batch) -> Tensor:
        """Pooled (and normalized) encoder outputs, (B, D)."""
        bound = self.bound(params)
        return self.ranks.collect(torch.cat([self._pooled(bound, group) for group in batch.groups]))[batch.order]

    def _pooled(self, bound: Params, group: Group) -> Tensor:
        hidden = self.forward(bound, group).last_hidden_state
        if group.pool is not None:
            pooled = group.pool.to(hidden.dtype) @ hidden.flatten(0, 1)
        elif self.config.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            mask = group.inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
        return F.normalize(pooled, dim=-1) if self.config.normalize else pooled

    def outputs(self, params: Params, batch: Batch) -> Tensor:
        """logit_scale · (features · Wᵀ + b), (B, N), with W = head.weight (N, D) and b = head.bias (N,)."""
        return self.scores(params, self.features(params, batch))

    def scores(self, params: Params, features: Tensor) -> Tensor:
        """The head of `outputs` alone."""
        return self.config.logit_scale * F.linear(features, params["head.weight"], params["head.bias"])

    def token_ids(self, text: str) -> tuple[Tensor, Tensor]:
        """One text's tokens (1, L), cut at `max_length`, and the attention to each, all ones."""
        ids = self.tokenizer(text, truncation=True, max_length=self.config.max_length)["input_ids"]
        tokens = torch.tensor([ids], device=self.device)
        return tokens, torch.ones_like(tokens)

    def without_words(self, ids: Tensor) -> Tensor:
        """The same tokens, with padding for all but special ones."""
        kept = sorted({*self.tokenizer.all_special_ids} - {self.tokenizer.unk_token_id})  # an unknown word is a word
        special = torch.isin(ids, torch.tensor(kept, device=ids.device))
        return torch.where(special, ids, torch.full_like(ids, self.tokenizer.pad_token_id))

    def embeddings(self, params: Params, ids: Tensor) -> Tensor:
        """The word embeddings (B, L, D) of tokens (B, L)."""
        return self.adapted.input_embeddings(self.bound(params))[ids]

    def outputs_of_embeddings(self, params: Params, embeddings: Tensor, mask: Tensor) -> Tensor:
        """`outputs` (B, N) of word embeddings (B, L, D) in the place of tokens, with the attention mask (B, L)."""
        group = Group({"inputs_embeds": embeddings, "attention_mask": mask}, None)
        return self.scores(params, self._pooled(self.bound(params), group))

    def self_supervised_loss(self, params: Params, batch: Batch) -> Tensor:
        """Mean cross-entropy of masked tokens (Devlin et al. 2019, sec. 3.1, without its random replacements).

        A sentence encoder has no head for it: scores are products with the word embeddings. All layers run, for
        masked texts are not those whose lower layers were computed once. Raises `ConfigError` without a mask token.
        """
        mask_id = self.tokenizer.mask_token_id
        if mask_id is None:
            raise ConfigError(
                f"objective.by: {self.config.model} has no mask token, so it cannot adapt by masked tokens. "
                f"Set objective.by=entropy."
            )
        if self.ranks.size > 1:
            raise ConfigError(
                "objective.by: masked tokens are not counted over the ranks of a group. Set workers.ranks_per_group=1, "
                "or objective.by=entropy."
            )
        if self.config.padding == "packed":
            raise ConfigError(
                "objective.by: masked tokens are chosen text by text, and learner.padding=packed lays several into a "
                "row. Set learner.padding=groups, or objective.by=entropy."
            )
        bound = self.bound(params)
        embeddings = self.adapted.input_embeddings(bound)
        scores, tokens = [], []
        for group in batch.groups:
            ids = group.inputs["input_ids"]
            masked = masked_places(ids, group.inputs["attention_mask"], self.tokenizer.all_special_ids)
            inputs = {**group.inputs, "input_ids": ids.masked_fill(masked, mask_id)}
            hidden = self.forward(bound, Group(inputs, None)).last_hidden_state
            scores.append(hidden[masked] @ embeddings.T)
            tokens.append(ids[masked])
        return F.cross_entropy(torch.cat(scores), torch.cat(tokens))

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Mean cross-entropy."""
        assert batch.targets is not None, "a loss needs targets"
        return F.cross_entropy(self.outputs(params, batch), batch.targets)
