"""A pretrained text encoder with a linear head that is passed in: N-way classification for any N.

The head is not the learner's: an objective starts it (from zeros, meta-learned, or from the class means)
and the inner loop adapts it like any other parameter.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AutoModel

from metacl.errors import ConfigError
from metacl.learners.adapter import AdaptedModel, AdapterConfig
from metacl.learners.base import CPU, LEARNERS, Batch, Group, Learner, LearnerConfig, Params
from metacl.learners.engine import Engine, element_count
from metacl.learners.frozen_prefix import FrozenPrefix
from metacl.learners.length_groups import length_groups
from metacl.learners.loading import load_config_and_tokenizer
from metacl.learners.pretrained import find_pretrained


@LEARNERS.register("text_classifier")
class TextClassifierConfig(LearnerConfig):
    """A Hugging Face encoder, pooled to one vector a text, with an N-way linear head.

    model : hub id or folder. max_length : tokens kept of a text.
    pooling : how token vectors become one. normalize : scale features to unit length.
    logit_scale : the constant that head outputs are multiplied by (an inverse temperature).
    padding : "groups" of similar length (least work), or always to "max_length" (one shape, for compiled estimators).
    base_dtype : of the frozen matrices; "bfloat16" is faster where the machine has it, and a little less exact.
    attention : "eager" has the double backward that exact estimators need; "sdpa" does not.
    """

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    max_length: PositiveInt = 32
    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = True
    logit_scale: PositiveFloat = 10.0
    padding: Literal["groups", "max_length"] = "groups"
    attention: Literal["eager", "sdpa"] = "eager"
    base_dtype: Literal["float32", "bfloat16"] = "float32"
    adapter: AdapterConfig = AdapterConfig()

    def build(self, seed: int, device: torch.device = CPU, engine: Engine | None = None) -> TextClassifier:
        """Load the encoder and its tokenizer, freeze it, attach the adapter."""
        return TextClassifier(self, seed, device, engine)

    @property
    def one_shape(self) -> bool:
        """Padded to one length."""
        return self.padding == "max_length"

    @property
    def double_backward(self) -> bool:
        """Eager attention has it."""
        return self.attention == "eager"

    def source(self) -> str:
        """Where the weights are taken from."""
        return f"{self.model} from {find_pretrained(self.model).origin}"


class TextClassifier(Learner):
    """See `TextClassifierConfig`."""

    def __init__(
        self, config: TextClassifierConfig, seed: int, device: torch.device, engine: Engine | None
    ) -> None:
        self.config = config
        self.device = device
        folder = find_pretrained(config.model).folder
        engine = engine or Engine()
        self.ranks = engine.ranks
        architecture, self.tokenizer = load_config_and_tokenizer(folder)
        limit = getattr(architecture, "max_position_embeddings", None)
        if limit is not None and config.max_length > limit:
            raise ConfigError(
                f"learner.max_length: {config.max_length} tokens, but {config.model} has {limit} positions."
            )
        encoder = engine.load(AutoModel, folder, config.attention, config.base_dtype, device)
        self.base_parameters = element_count(encoder)
        self.adapted: AdaptedModel = config.adapter.attach(encoder, seed)
        self.initial = self.adapted.initial()
        self.width = encoder.config.hidden_size
        self.adapted.model.to(device)
        held = dict(self.adapted.model.named_parameters())
        self.module: nn.Module = engine.hold(
            self.adapted.model, [held[name] for name in self.adapted.module_names.values()]
        )
        self._prefix = FrozenPrefix(self.module, self.adapted.module_names.values())
        self._forward = threading.RLock()
        """Held while the module runs: the prefix and `functional_call` change it for that long."""

    def peft_config(self) -> dict[str, Any]:
        """The adapter's config, naming the model as this config does."""
        return self.adapted.peft_config(self.config.model)

    def encode(self, texts: Sequence[str], labels: Sequence[int] | None) -> Batch:
        """Tokenize B texts (cut at `max_length`, padded by groups of similar length), run the frozen layers once."""
        tokens = self.tokenizer(list(texts), truncation=True, max_length=self.config.max_length)["input_ids"]
        members = [list(range(len(tokens)))]
        if self.config.padding == "groups":
            members = length_groups([len(ids) for ids in tokens])
        mine, order = self.ranks.share(members)
        groups = []
        for everyones, own in zip(members, mine, strict=True):
            longest = max(len(tokens[position]) for position in everyones)
            padded = self.tokenizer.pad(
                {"input_ids": [tokens[position] for position in own]},
                padding="max_length",
                max_length=self.config.max_length if self.config.padding == "max_length" else longest,
                return_tensors="pt",
            )
            inputs = {name: padded[name].to(self.device) for name in ("input_ids", "attention_mask")}
            with self._forward:
                prefix = self._prefix.compute(self.module, inputs)
            groups.append(Group(inputs, prefix))
        targets = None if labels is None else torch.tensor(labels, device=self.device)
        return Batch(groups, order.to(self.device), targets)

    def features(self, params: Params, batch: Batch) -> Tensor:
        """Pooled (and normalized) encoder outputs, (B, D)."""
        bound = self.ranks.spread(self.adapted.bind(params))
        return self.ranks.collect(torch.cat([self._pooled(bound, group) for group in batch.groups]))[batch.order]

    def _pooled(self, bound: Params, group: Group) -> Tensor:
        with self._forward, self._prefix.reuse(group.prefix):
            hidden = functional_call(self.module, bound, (), group.inputs).last_hidden_state
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

