"""What learners on pretrained transformers share: loading, the adapter, batches of tokens, the forward."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn
from torch.func import functional_call

from metacl.errors import ConfigError
from metacl.learners.adapted import Adapted
from metacl.learners.adapter import AdapterConfig
from metacl.learners.base import Group, Learner, LearnerConfig, Params
from metacl.learners.engine import Engine, element_count
from metacl.learners.frozen_prefix import FrozenPrefix
from metacl.learners.length_groups import length_groups
from metacl.learners.loading import load_config_and_tokenizer
from metacl.learners.partition import Partition
from metacl.learners.pretrained import find_pretrained
from metacl.learners.token_count import counting


class TransformerConfig(LearnerConfig):
    """Options of every learner on a Hugging Face model.

    model : hub id or folder. max_length : tokens kept of a text.
    padding : to the longest in "groups" of similar length; or always to "max_length" (one shape); or hardly any, with
    texts "packed" into rows of max_length (few shapes, for compiled estimators; encoders that take positions).
    base_dtype : of the frozen matrices; "bfloat16" is faster where the machine has it, and a little less exact.
    adapter : what adapts; null for every parameter of the model.
    attention : "eager" has the double backward that exact estimators need; "sdpa" does not.
    """

    model: str
    max_length: PositiveInt = 32
    padding: Literal["groups", "max_length", "packed"] = "groups"
    attention: Literal["eager", "sdpa"] = "eager"
    base_dtype: Literal["float32", "bfloat16"] = "float32"
    adapter: AdapterConfig | None = AdapterConfig()

    packs: ClassVar[bool] = False
    """Whether several texts may share a row."""
    takes_prompt: ClassVar[bool] = True
    """Whether embeddings that adapt may come before a text."""

    @model_validator(mode="after")
    def _texts_keep_their_rows(self) -> TransformerConfig:
        if self.padding == "packed" and not self.packs:
            raise ValueError("padding: packed is for text_classifier. Set learner.padding=groups, or max_length")
        return self

    @model_validator(mode="after")
    def _prompt_has_a_place(self) -> TransformerConfig:
        if self.adapter is None or not self.adapter.prompt_tokens:
            return self
        if not self.takes_prompt:
            raise ValueError(
                "learner.adapter.kind: prompt is for text_classifier and causal_lm. Set learner.adapter.kind=lora"
            )
        if self.padding == "packed":
            raise ValueError(
                "padding: packed puts several texts into a row, which has one place for a prompt. "
                "Set learner.padding=groups, or learner.adapter.kind=lora"
            )
        return self

    @model_validator(mode="after")
    def _something_is_frozen(self) -> TransformerConfig:
        if self.adapter is None and self.base_dtype != "float32":
            raise ValueError(
                f"base_dtype: {self.base_dtype} is for frozen matrices, and with learner.adapter=null all adapt. "
                f"Set learner.base_dtype=float32"
            )
        return self

    @property
    def adapts_whole_model(self) -> bool:
        """Without an adapter."""
        return self.adapter is None

    @property
    def few_shapes(self) -> bool:
        """Rows of one length."""
        return self.padding != "groups"

    @property
    def double_backward(self) -> bool:
        """Eager attention has it."""
        return self.attention == "eager"

    def check_positions(self, architecture: Any) -> None:
        """Raise `ConfigError` if a model of this architecture has no place for a text and the prompt before it."""
        limit = getattr(architecture, "max_position_embeddings", None)
        prompt = 0 if self.adapter is None else self.adapter.prompt_tokens
        if limit is not None and self.max_length + prompt > limit:
            before = f" and {prompt} of the prompt before them" if prompt else ""
            raise ConfigError(
                f"learner.max_length: {self.max_length} tokens{before}, but {self.model} has {limit} positions."
            )

    def source(self) -> str:
        """Where the weights are taken from."""
        return f"{self.model} from {find_pretrained(self.model).origin}"


class TransformerLearner(Learner):
    """A transformer that is frozen but for an adapter, or not at all, held by an engine.

    Parameters
    ----------
    kind : a transformers auto class
        What the model is loaded as.
    """

    own_input: ClassVar[str | None] = None
    """Key of a group's inputs that is for the loss and not given to the model; None if there is none."""

    def __init__(
        self, config: TransformerConfig, kind: Any, seed: int, device: torch.device, engine: Engine | None
    ) -> None:
        engine = engine or Engine()
        self._options = config
        self.device = device
        self.ranks = engine.ranks
        folder = find_pretrained(config.model).folder
        architecture, self.tokenizer = load_config_and_tokenizer(folder)
        config.check_positions(architecture)
        model = engine.load(kind, folder, config.attention, config.base_dtype, device)
        adapter = config.adapter
        self.adapted: Adapted = engine.adapt_all(model) if adapter is None else adapter.attach(model, seed)
        self.base_parameters = element_count(self.adapted.model, set(self.adapted.module_names.values()))
        self.initial = self.adapted.initial()
        self.partition = Partition(self.ranks, self.adapted.shapes)
        self.adapted.model.to(device)
        held = dict(self.adapted.model.named_parameters())
        self.module: nn.Module = engine.hold(
            self.adapted.model, [held[name] for name in self.adapted.module_names.values()]
        )
        self._prefix = FrozenPrefix(self.module, self.adapted.module_names.values())
        self._forward = threading.RLock()
        """Held while the module runs: the prefix and `functional_call` change it for that long."""

    def without_prompt(self) -> Self:
        """A view of the same weights. A prompt begins as random words: with it, it is not the pretrained model."""
        if not self.adapted.prompt_tokens:
            return self
        plain = copy.copy(self)
        plain.adapted = Adapted(self.adapted.model.get_base_model(), {})
        plain.module = plain.adapted.model
        return plain

    def as_prompt(self, text: str) -> str:
        """What is given to the model for it to go on after `text`. Default: the text."""
        return text

    def peft_config(self) -> dict[str, Any]:
        """The adapter's config, naming the model as this config does."""
        return self.adapted.peft_config(self._options.model)

    def save_architecture(self, folder: Path) -> None:
        """config.json and the tokenizer."""
        self.adapted.model.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def groups(self, tokens: Sequence[list[int]]) -> tuple[list[list[int]], list[Group], Tensor]:
        """This rank's part of B token sequences, padded by groups of similar length; the frozen layers have run.

        Returns
        -------
        members : for each group, which of the sequences are in it, by position
        groups : list of Group
        order : (B,), as `RankGroup.share` has it
        """
        everyones = [list(range(len(tokens)))]
        if self._options.padding == "groups":
            everyones = length_groups([len(ids) for ids in tokens])
        members, order = self.ranks.share(everyones)
        groups = [
            self.laid_out([tokens[position] for position in own], max(len(tokens[position]) for position in together))
            for together, own in zip(everyones, members, strict=True)
        ]
        return members, groups, order.to(self.device)

    def laid_out(self, tokens: list[list[int]], length: int) -> Group:
        """Token sequences in rows of `length`, or of max_length where `padding` says so."""
        padded = self.tokenizer.pad(
            {"input_ids": tokens},
            padding="max_length",
            max_length=length if self._options.padding == "groups" else self._options.max_length,
            return_tensors="pt",
        )
        return self.with_prefix({name: padded[name] for name in ("input_ids", "attention_mask")})

    def with_prefix(self, inputs: dict[str, Tensor]) -> Group:
        """The inputs on this learner's device, and what the frozen layers make of them."""
        inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        with self._forward:
            return Group(inputs, self._prefix.compute(self.module, inputs))

    def tokens_in(self, group: Group) -> Tensor:
        """How many tokens a group's rows have, padding left out, a scalar."""
        return group.inputs["attention_mask"].sum()

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each of B texts, cut at `max_length`."""
        read = self.tokenizer(list(texts), truncation=True, max_length=self._options.max_length)["input_ids"]
        return [len(ids) for ids in read]

    def bound(self, params: Params) -> Params:
        """What adapts under the module's names, for use on this rank's groups."""
        bound = self.adapted.bind(params)
        return bound if self.adapted.shapes else self.ranks.spread(bound)

    def forward(self, bound: Params, group: Group, **options: Any) -> Any:
        """The model's output for a group, at the places of its texts."""
        if (count := counting()) is not None:
            count.ran(self.tokens_in(group), self.ranks)
        inputs = {name: tensor for name, tensor in group.inputs.items() if name != self.own_input}
        with self._forward, self._prefix.reuse(group.prefix):
            # An adapter's tensors are tied to nothing, and looking for ties costs a tenth of a small forward.
            ties = self._options.adapter is None
            output = functional_call(self.module, bound, (), {**inputs, **options}, tie_weights=ties)
        if self.adapted.prompt_tokens:
            for name in ("last_hidden_state", "logits"):
                if name in output:
                    output[name] = output[name][:, self.adapted.prompt_tokens :]
        return output
