"""A pretrained causal language model: support and query are texts of one domain, the loss is that of the next token.

There is no head on top and there are no features: what adapts is the adapter alone, so the objective is `maml`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor
from transformers import AutoModelForCausalLM

from metacl.errors import ConfigError, DataError
from metacl.learners.base import CPU, LEARNERS, Batch, Group, Params
from metacl.learners.completions import SCORED, Completions
from metacl.learners.engine import Engine
from metacl.learners.label_words import LabelWords
from metacl.learners.samples import Samples
from metacl.learners.transformer import TransformerConfig


@LEARNERS.register("causal_lm")
class CausalLanguageModelConfig(TransformerConfig):
    """A Hugging Face causal language model; perplexity on the texts of a domain.

    completion_after : the loss is on what follows the first occurrence of this string in a text ("Answer:"); null
    (default) for all tokens but the first. completion_tokens : drawn of an answer when it adapts by reward; what stands
    before the tokens that count is the prompt. Texts of classes are read with the class's name behind them.
    """

    completion_after: str | None = None
    completion_tokens: PositiveInt = 16
    has_features: ClassVar[bool] = False

    @property
    def classifies(self) -> bool:
        """It does not."""
        return False

    @property
    def scores_after(self) -> str | None:
        """As configured."""
        return self.completion_after

    def build(self, seed: int, device: torch.device = CPU, engine: Engine | None = None) -> CausalLanguageModel:
        """Load the model and its tokenizer, freeze it, attach the adapter."""
        return CausalLanguageModel(self, seed, device, engine)


class CausalLanguageModel(LabelWords):
    """See `CausalLanguageModelConfig`. A batch's `targets` are the tokens that count in each text, (B,)."""

    config: CausalLanguageModelConfig
    own_input: ClassVar[str | None] = SCORED

    def __init__(
        self, config: CausalLanguageModelConfig, seed: int, device: torch.device, engine: Engine | None
    ) -> None:
        super().__init__(config, AutoModelForCausalLM, seed, device, engine)
        self.config = config
        if not self.tokenizer.is_fast:
            raise ConfigError(f"learner.model: {config.model} has a tokenizer without character offsets (no fast one).")
        self.tokenizer.padding_side = "right"
        if self.tokenizer.pad_token is None:  # what is padded is masked and never scored
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.unk_token
        if self.tokenizer.pad_token is None:
            raise ConfigError(f"learner.model: {config.model} has a tokenizer with neither a pad nor an eos token.")
        self.vocabulary = self.adapted.model.config.vocab_size
        self._completions = Completions(self, config.completion_tokens, config.max_length)

    def encode(self, texts: Sequence[str], labels: Sequence[int] | None) -> Batch:
        """Tokenize B texts (cut at `max_length`), mark the tokens that count; labels are not looked at.

        Raises `DataError` if a text has no token that counts.
        """
        read = self.tokenizer(
            list(texts), truncation=True, max_length=self.config.max_length, return_offsets_mapping=True
        )
        scored = [self._scored(text, offsets) for text, offsets in zip(texts, read["offset_mapping"], strict=True)]
        members, groups, order = self.groups(read["input_ids"])
        for positions, group in zip(members, groups, strict=True):
            length = group.inputs["input_ids"].shape[1]
            marks = [scored[position] + [False] * (length - len(scored[position])) for position in positions]
            group.inputs[SCORED] = torch.tensor(marks, device=self.device)
        return Batch(groups, order, torch.tensor([sum(marks) for marks in scored], device=self.device))

    def _scored(self, text: str, offsets: Sequence[tuple[int, int]]) -> list[bool]:
        """Whether each token counts. The first one does not: nothing comes before it that could predict it."""
        marker, begin = self.config.completion_after, 0
        if marker is not None:
            if marker not in text:
                raise DataError(f"learner.completion_after: {marker!r} does not occur in the text {text[:60]!r}.")
            begin = text.index(marker) + len(marker)
        # A token of byte-level BPE holds the space before its word: what ends in the completion is of it.
        marks = [place > 0 and (first >= begin or last > begin) for place, (first, last) in enumerate(offsets)]
        if not any(marks):
            raise DataError(
                f"learner.max_length: of the {len(offsets)} tokens kept of the text {text[:60]!r} none counts in the "
                f"loss. Raise learner.max_length, or leave the text out."
            )
        return marks

    def as_prompt(self, text: str) -> str:
        """With the marker, where there is one."""
        return text + (self.config.completion_after or "")

    def outputs(self, params: Params, batch: Batch) -> Tensor:
        """Negative log-likelihood of each text's tokens that count, (B,), in nats."""
        bound = self.bound(params)
        return self.ranks.collect(torch.cat([self._surprise(bound, group) for group in batch.groups]))[batch.order]

    def _surprise(self, bound: Params, group: Group) -> Tensor:
        logits = self._logits(bound, group)
        surprise = F.cross_entropy(logits.transpose(1, 2), group.inputs["input_ids"][:, 1:], reduction="none")
        return (surprise * group.inputs[SCORED][:, 1:]).sum(1)

    def _logits(self, bound: Params, group: Group) -> Tensor:
        """Of every token but the first, given those before it, (G, L − 1, V)."""
        return self.forward(bound, group, use_cache=False).logits[:, :-1].float()

    def divergence(self, before: Params, now: Params, batch: Batch) -> Tensor:
        """See `Learner.divergence`."""
        first, second = self.bound(before), self.bound(now)
        rows = []
        for group in batch.groups:
            wanted, found = (self._logits(bound, group).log_softmax(-1) for bound in (first, second))
            tokens = F.kl_div(found, wanted, reduction="none", log_target=True).sum(-1)
            rows.append((tokens * group.inputs[SCORED][:, 1:]).sum(1))
        return self.ranks.collect(torch.cat(rows))[batch.order]

    def self_supervised_loss(self, params: Params, batch: Batch) -> Tensor:
        """Next tokens are there without labels: the same as `loss`."""
        return self.loss(params, batch)

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Mean over the tokens that count, in nats; its exponential is the perplexity."""
        assert batch.targets is not None
        return self.outputs(params, batch).sum() / batch.targets.sum()

    def sample(self, params: Params, batch: Batch, count: int, seed: int) -> Samples:
        """Completions of the prompts, as tokens and as texts. Raises `DataError` if they do not fit a row."""
        return self._completions.draw(params, batch, count, seed)

    def log_probabilities(self, params: Params, batch: Batch, samples: Samples) -> Tensor:
        """Of every token of the completions, (B, G, L), in nats, differentiable in `params`."""
        return self._completions.log_probabilities(params, batch, samples)
