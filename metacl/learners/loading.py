"""Reading a model folder: its tokenizer, and its weights as transformers loads them into one process.

transformers itself makes up an empty tokenizer, and random values for weights that the file does not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from metacl.errors import ConfigError


def load_config_and_tokenizer(folder: Path) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
    """Both of a folder. Raises `ConfigError` if one is missing or damaged."""
    with _said(folder):
        # First: what is wrong with it would be said in the tokenizer's words.
        config = AutoConfig.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    vocabulary = sorted(tokenizer.vocab_files_names.values())
    if vocabulary and not any((folder / name).exists() for name in vocabulary):
        raise ConfigError(f"learner.model: {folder}: no tokenizer there (none of {', '.join(vocabulary)}).")
    return config, tokenizer


def load_whole(kind: Any, folder: Path, attention: str) -> PreTrainedModel:
    """All weights in float32, for evaluation. Raises `ConfigError`."""
    transformers_logging.disable_progress_bar()
    with _said(folder):
        model, info = kind.from_pretrained(
            folder,
            attn_implementation=attention,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    mismatched = {key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]}
    check_complete(folder, {*info["missing_keys"], *mismatched})
    return model.eval()


def check_complete(folder: Path, lacking: set[str]) -> None:
    """Raise `ConfigError` if the weights lack a tensor that matters, or have it in another shape."""
    missing = sorted(key for key in lacking if not key.startswith("pooler."))
    if missing:
        raise ConfigError(
            f"learner.model: {folder}: the weights lack {missing[0]}, or have it in another shape "
            f"({len(missing)} such tensors). Is the file of the architecture that config.json names?"
        )


@contextmanager
def _said(folder: Path) -> Iterator[None]:
    """What cannot be loaded is said in one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"learner.model: {folder}: cannot be loaded: {reason}") from None
