"""Random models of the families that differ in their layers, saved to folders as the hub has them."""

from __future__ import annotations

import copy
import string
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

SYMBOLS = ["[PAD]", "[UNK]", *string.ascii_lowercase, " ", "?", "."]
"""A token each."""

VOCABULARY = len(SYMBOLS)

_GATED = dict(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=0,
    eos_token_id=0,
)

FAMILIES: dict[str, tuple[PreTrainedConfig, tuple[str, ...]]] = {
    "llama": (LlamaConfig(**_GATED), ("q_proj", "v_proj", "down_proj")),  # gated MLP, RMSNorm, head of its own
    "mistral": (MistralConfig(**_GATED, sliding_window=8), ("k_proj", "up_proj")),
    "qwen": (Qwen2Config(**_GATED, tie_word_embeddings=True), ("q_proj", "o_proj")),  # biases in attention, tied
    "gpt2": (
        GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0
        ),
        ("c_attn", "c_fc"),
    ),  # Conv1D, learned positions, tied
    "bert": (
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
        ),
        ("query", "value", "dense"),
    ),
}
"""Family -> (its shape, modules to adapt)."""


def save_family(family: str, folder: Path, causal: bool = False, hidden: int = 32, **shape: int) -> Path:
    """A random model with weights large enough that all of its parts matter, and a tokenizer of letters."""
    config = copy.deepcopy(FAMILIES[family][0])
    for name, size in {"hidden_size": hidden, **shape}.items():
        setattr(config, name, size)
    torch.manual_seed(0)
    model = (AutoModelForCausalLM if causal else AutoModel).from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """A token for each of `SYMBOLS`, and no others."""
    tokenizer = Tokenizer(WordLevel({symbol: place for place, symbol in enumerate(SYMBOLS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Split(Regex("."), "isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    ).save_pretrained(folder)
