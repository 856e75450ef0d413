"""A pretrained text encoder with a linear head that is passed in: N-way classification for any N.

The head is not the learner's: an objective starts it (from zeros, meta-learned, or from the class means)
and the inner loop adapts it like any other parameter.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from metacl.errors import ConfigError
from metacl.learners.adapter import AdaptedModel, AdapterConfig
from metacl.learners.base import CPU, LEARNERS, Batch, EngineWrapper, Group, Learner, LearnerConfig, Params
from metacl.learners.frozen_prefix import FrozenPrefix
from metacl.learners.length_groups import length_groups
from metacl.learners.masking import masked_places
from metacl.learners.packing import pack
from metacl.learners.precision import linears_to_bfloat16
from metacl.learners.pretrained import find_pretrained

PACKING_TOLERANCE = 1e-3
"""How far features may be moved by the rounding of bfloat16, with texts in one row instead of several."""


@LEARNERS.register("text_classifier")
class TextClassifierConfig(LearnerConfig):
    """A Hugging Face encoder, pooled to one vector a text, with an N-way linear head.

    model : hub id or folder. max_length : tokens kept of a text.
    pooling : how token vectors become one. normalize : scale features to unit length.
    logit_scale : the constant that head outputs are multiplied by (an inverse temperature).
    padding : to the longest in "groups" of similar length; or always to "max_length" (one shape); or hardly any, with
    texts "packed" into rows of max_length (few shapes, for compiled estimators; encoders that take positions).
    base_dtype : of the frozen matrices; "bfloat16" is faster where the machine has it, and a little less exact.
    attention : "eager" has the double backward that exact estimators need; "sdpa" does not.
    """

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    max_length: PositiveInt = 32
    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = True
    logit_scale: PositiveFloat = 10.0
    padding: Literal["groups", "max_length", "packed"] = "groups"
    attention: Literal["eager", "sdpa"] = "eager"
    base_dtype: Literal["float32", "bfloat16"] = "float32"
    adapter: AdapterConfig = AdapterConfig()

    def build(self, seed: int, device: torch.device = CPU, engine: EngineWrapper | None = None) -> TextClassifier:
        """Load the encoder and its tokenizer, freeze it, attach the adapter."""
        return TextClassifier(self, seed, device, engine)

    @property
    def few_shapes(self) -> bool:
        """Rows of one length."""
        return self.padding != "groups"

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
        self, config: TextClassifierConfig, seed: int, device: torch.device, engine: EngineWrapper | None
    ) -> None:
        self.config = config
        self.device = device
        folder = find_pretrained(config.model).folder
        self.tokenizer, encoder = _load(folder, config.attention)
        limit = getattr(encoder.config, "max_position_embeddings", None)
        if limit is not None and config.max_length > limit:
            raise ConfigError(
                f"learner.max_length: {config.max_length} tokens, but {config.model} has {limit} positions."
            )
        if config.base_dtype == "bfloat16":
            linears_to_bfloat16(encoder)
        self.base_parameters = sum(parameter.numel() for parameter in encoder.parameters())
        self.adapted: AdaptedModel = config.adapter.attach(encoder, seed)
        self.initial = self.adapted.initial()
        self.width = encoder.config.hidden_size
        self.adapted.model.to(device)
        held = dict(self.adapted.model.named_parameters())
        self.module: nn.Module = self.adapted.model
        if engine is not None:
            self.module = engine(self.adapted.model, [held[n] for n in self.adapted.module_names.values()])
        self._prefix = FrozenPrefix(self.module, self.adapted.module_names.values())
        self._forward = threading.RLock()
        """Held while the module runs: the prefix and `functional_call` change it for that long."""
        if config.padding == "packed":
            self._check_packing()

    def peft_config(self) -> dict[str, Any]:
        """The adapter's config, naming the model as this config does."""
        return self.adapted.peft_config(self.config.model)

    def encode(self, texts: Sequence[str], labels: Sequence[int] | None) -> Batch:
        """Tokenize B texts (cut at `max_length`), lay them out as `padding` says, run the frozen layers once."""
        tokens = self.tokenizer(list(texts), truncation=True, max_length=self.config.max_length)["input_ids"]
        if self.config.padding == "groups":
            members = length_groups([len(ids) for ids in tokens])
        else:
            members = [list(range(len(tokens)))]
        groups = [self._laid_out([tokens[p] for p in positions], self.config.padding) for positions in members]
        order = torch.tensor([position for positions in members for position in positions]).argsort()
        targets = None if labels is None else torch.tensor(labels, device=self.device)
        return Batch(groups, order.to(self.device), targets)

    def _laid_out(self, tokens: list[list[int]], padding: str) -> Group:
        pool = None
        if padding == "packed":
            packed = pack(tokens, self.config.max_length)
            inputs = {name: getattr(packed, name) for name in ("input_ids", "position_ids", "attention_mask")}
            weights = packed.first_weights() if self.config.pooling == "cls" else packed.mean_weights()
            pool = weights.to(self.device)
        else:
            padded = self.tokenizer.pad(
                {"input_ids": tokens},
                padding="longest" if padding == "groups" else "max_length",
                max_length=self.config.max_length,
                return_tensors="pt",
            )
            inputs = {name: padded[name] for name in ("input_ids", "attention_mask")}
        inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        with self._forward:
            return Group(inputs, self._prefix.compute(self.module, inputs), pool)

    def _check_packing(self) -> None:
        """Raise `ConfigError` if texts that share a row see each other, or are pooled otherwise than alone."""
        tokens = [self.tokenizer(text)["input_ids"][: self.config.max_length // 2] for text in ("a b", "c", "d e f")]
        bound = self.adapted.bind({name: tensor.to(self.device) for name, tensor in self.initial.items()})
        try:
            with torch.no_grad():
                shared = self._pooled(bound, self._laid_out(tokens, "packed"))
                alone = torch.cat([self._pooled(bound, self._laid_out([ids], "groups")) for ids in tokens])
            distance = float((shared - alone).abs().max())
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            raise ConfigError(
                f"learner.padding: {self.config.model} cannot run packed texts ({str(error).splitlines()[0]}). "
                f"Set learner.padding=groups, or max_length for compiled estimators."
            ) from None
        if distance > PACKING_TOLERANCE:
            raise ConfigError(
                f"learner.padding: packed texts get other features than alone in {self.config.model} (by "
                f"{distance:.1e}). Set learner.padding=groups, or max_length for compiled estimators."
            )

    def features(self, params: Params, batch: Batch) -> Tensor:
        """Pooled (and normalized) encoder outputs, (B, D)."""
        bound = self.adapted.bind(params)
        return torch.cat([self._pooled(bound, group) for group in batch.groups])[batch.order]

    def _pooled(self, bound: Params, group: Group) -> Tensor:
        with self._forward, self._prefix.reuse(group.prefix):
            hidden = functional_call(self.module, bound, (), group.inputs).last_hidden_state
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

    def self_supervised_loss(self, params: Params, batch: Batch) -> Tensor:
        """Mean cross-entropy of masked tokens (Devlin et al. 2019, sec. 3.1, without its random replacements).

        A sentence encoder has no head for it: scores are products with the frozen word embeddings. All layers run, for
        masked texts are not those whose lower layers were computed once. Raises `ConfigError` without a mask token.
        """
        mask_id = self.tokenizer.mask_token_id
        if mask_id is None:
            raise ConfigError(
                f"objective.by: {self.config.model} has no mask token, so it cannot adapt by masked tokens. "
                f"Set objective.by=entropy."
            )
        if self.config.padding == "packed":
            raise ConfigError(
                "objective.by: masked tokens are chosen text by text, and learner.padding=packed lays several into a "
                "row. Set learner.padding=groups, or objective.by=entropy."
            )
        bound = self.adapted.bind(params)
        embeddings = self.adapted.model.get_input_embeddings().weight
        scores, tokens = [], []
        for group in batch.groups:
            ids = group.inputs["input_ids"]
            masked = masked_places(ids, group.inputs["attention_mask"], self.tokenizer.all_special_ids)
            inputs = {**group.inputs, "input_ids": ids.masked_fill(masked, mask_id)}
            with self._forward:
                hidden = functional_call(self.module, bound, (), inputs).last_hidden_state
            scores.append(hidden[masked] @ embeddings.T)
            tokens.append(ids[masked])
        return F.cross_entropy(torch.cat(scores), torch.cat(tokens))

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Mean cross-entropy."""
        assert batch.targets is not None, "a loss needs targets"
        return F.cross_entropy(self.outputs(params, batch), batch.targets)


def _load(folder: Path, attention: str) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and encoder of a model folder. Raises `ConfigError` if a part is missing, damaged or of another shape.

    transformers itself makes up an empty tokenizer, and random values for weights that the file does not have.
    """
    transformers_logging.disable_progress_bar()
    try:
        AutoConfig.from_pretrained(folder)  # first: what is wrong with it would be said in the tokenizer's words
        tokenizer = AutoTokenizer.from_pretrained(folder)
        encoder, info = AutoModel.from_pretrained(
            folder,
            attn_implementation=attention,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"learner.model: {folder}: cannot be loaded: {reason}") from None
    vocabulary = sorted(tokenizer.vocab_files_names.values())
    if vocabulary and not any((folder / name).exists() for name in vocabulary):
        raise ConfigError(f"learner.model: {folder}: no tokenizer there (none of {', '.join(vocabulary)}).")
    mismatched = {key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]}
    missing = sorted(key for key in {*info["missing_keys"], *mismatched} if not key.startswith("pooler."))
    if missing:
        raise ConfigError(
            f"learner.model: {folder}: the weights lack {missing[0]}, or have it in another shape "
            f"({len(missing)} such tensors). Is the file of the architecture that config.json names?"
        )
    return tokenizer, encoder.eval()
