"""Small models and configs that several tests share: fast, but through the same code as real ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel

from metacl.config import RunConfig, config_from_dict
from metacl.learners.pretrained import find_pretrained

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def save_tiny_bert(folder: Path) -> Path:
    """A random 3-layer BERT of width 32 with MiniLM's tokenizer."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder)
    real = find_pretrained(MINILM).folder
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(real / name, folder / name)
    return folder


def small_tree(model: Path | str, output: Path, **changes: Any) -> dict[str, Any]:
    """A config of a few seconds, as plain values. `changes` replace dotted keys (dots written as __)."""
    tree: dict[str, Any] = {
        "name": "small",
        "output": str(output),
        "learner": {
            "name": "text_classifier",
            "model": str(model),
            "max_length": 16,
            "logit_scale": 5.0,
            "adapter": {"rank": 2, "last_layers": 2},
        },
        "data": {"name": "labelled_text", "dataset": "banking77"},
        "episodes": {"ways": 3, "shots": 1, "queries": 2},
        "inner": {"steps": 2},
        "outer": {"steps": 5, "tasks_per_step": 3},
        "workers": {"executor": "local"},
        "checkpoints": {"every": 2, "keep": 2},
    }
    for key, value in changes.items():
        node = tree
        *parents, last = key.split("__")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def small_config(model: Path | str, output: Path, **changes: Any) -> RunConfig:
    """`small_tree`, built."""
    return config_from_dict(small_tree(model, output, **changes))
