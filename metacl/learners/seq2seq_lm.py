"""A pretrained encoder-decoder (T5, BART): the encoder reads what stands before a marker, the decoder says the rest.

For `prompt_completion` data, as `causal_lm` is; the loss is that of the completion's tokens. No layers are computed
ahead of the inner loop: `FrozenPrefix` knows models with one stack of layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import StringConstraints
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM

from metacl.errors import DataError
from metacl.learners.base import CPU, LEARNERS, Batch, Group, Params
from metacl.learners.engine import Engine
from metacl.learners.label_words import LabelWords
from metacl.learners.transformer import TransformerConfig

LABELS = "labels"
"""Key of a group's inputs: the completion's tokens, (G, L), `IGNORED` where there is none; not given to the model."""

IGNORED = -100


@LEARNERS.register("seq2seq_lm")
class SequenceToSequenceConfig(TransformerConfig):
    """A Hugging Face encoder-decoder; perplexity on the completions of a domain's prompts.

    completion_after : the encoder reads what stands before the first occurrence of this string in a text, the decoder
    is to say what follows. max_length : tokens kept of each of the two.
    """

    completion_after: Annotated[str, StringConstraints(min_length=1)] = "\nAnswer: "
    takes_prompt: ClassVar[bool] = False
    has_features: ClassVar[bool] = False

    @property
    def classifies(self) -> bool:
        """It does not."""
        return False

    @property
    def scores_after(self) -> str:
        """As configured."""
        return self.completion_after

    def build(self, seed: int, device: torch.device = CPU, engine: Engine | None = None) -> SequenceToSequence:
        """Load the model and its tokenizer, freeze it, attach the adapter."""
        return SequenceToSequence(self, seed, device, engine)


class SequenceToSequence(LabelWords):
    """See `SequenceToSequenceConfig`. A batch's `targets` are the tokens that count in each text, (B,)."""

    config: SequenceToSequenceConfig
    own_input: ClassVar[str | None] = LABELS

    def __init__(
        self, config: SequenceToSequenceConfig, seed: int, device: torch.device, engine: Engine | None
    ) -> None:
        super().__init__(config, AutoModelForSeq2SeqLM, seed, device, engine)
        self.config = config
        self.tokenizer.padding_side = "right"

    def with_prefix(self, inputs: dict[str, Tensor]) -> Group:
        """The inputs on this learner's device; nothing is computed ahead."""
        return Group({name: tensor.to(self.device) for name, tensor in inputs.items()}, None)

    def encode(self, texts: Sequence[str], labels: Sequence[int] | None) -> Batch:
        """Tokenize B prompts and their completions (each cut at `max_length`); labels are not looked at.

        Raises `DataError` if a text has no marker, or its completion no token.
        """
        prompts, completions = zip(*map(self._parts, texts), strict=True)
        cut = {"truncation": True, "max_length": self.config.max_length}
        sources = self.tokenizer(list(prompts), **cut)["input_ids"]
        answers = self.tokenizer(text_target=list(completions), **cut)["input_ids"]
        for text, source, answer in zip(texts, sources, answers, strict=True):
            if not source or not answer:
                raise DataError(f"learner.completion_after: a part of the text {text[:60]!r} has no token.")
        members, groups, order = self.groups(sources)
        for positions, group in zip(members, groups, strict=True):
            longest = max((len(answers[position]) for position in positions), default=1)
            length = longest if self.config.padding == "groups" else self.config.max_length
            rows = [answers[position] + [IGNORED] * (length - len(answers[position])) for position in positions]
            said = torch.tensor(rows, dtype=torch.long, device=self.device).view(len(rows), length)
            group.inputs[LABELS] = said
            group.inputs["decoder_input_ids"] = self.adapted.model.prepare_decoder_input_ids_from_labels(said)
        return Batch(groups, order, torch.tensor([len(answer) for answer in answers], device=self.device))

    def tokens_in(self, group: Group) -> Tensor:
        """The encoder's and the decoder's."""
        return super().tokens_in(group) + (group.inputs[LABELS] != IGNORED).sum()

    def _parts(self, text: str) -> tuple[str, str]:
        prompt, found, completion = text.partition(self.config.completion_after)
        if not found:
            marker = self.config.completion_after
            raise DataError(f"learner.completion_after: {marker!r} does not occur in the text {text[:60]!r}.")
        return prompt, completion

    def outputs(self, params: Params, batch: Batch) -> Tensor:
        """Negative log-likelihood of each text's completion, (B,), in nats."""
        bound = self.bound(params)
        return self.ranks.collect(torch.cat([self._surprise(bound, group) for group in batch.groups]))[batch.order]

    def _surprise(self, bound: Params, group: Group) -> Tensor:
        logits = self.forward(bound, group, use_cache=False).logits.float()
        said = group.inputs[LABELS]
        return F.cross_entropy(logits.transpose(1, 2), said, reduction="none", ignore_index=IGNORED).sum(1)

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Mean over the completions' tokens, in nats; its exponential is the perplexity."""
        assert batch.targets is not None
        return self.outputs(params, batch).sum() / batch.targets.sum()
