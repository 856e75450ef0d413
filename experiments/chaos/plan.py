"""What goes wrong, when: faults drawn from a seed, and the run that they strike."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel

from metacl.learners.pretrained import find_pretrained

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
NODES = 3
TASKS = 4
CHECKPOINT_EVERY = 5
LATER = 3  # steps of a first, undisturbed part, without which nobody knows how long a task takes

WEIGHTS = {
    "kill_rank": 22,
    "kill_node": 8,
    "hang": 8,
    "slow": 16,
    "non_finite": 20,
    "corrupt_reply": 20,
    "sigterm": 3,
    "corrupt_checkpoint": 3,
    "disk_full": 2,
}
"""How often each kind is drawn, of about a hundred."""


def faults(count: int, steps: int, seed: int) -> list[dict[str, Any]]:
    """Faults of random kinds, every kind at least once, each at a task of its own.

    A checkpoint is corrupted just before a stop, as long as there are stops left: else nobody would read it.
    """
    generator = random.Random(seed)
    kinds = list(WEIGHTS) + generator.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count - len(WEIGHTS))
    places = generator.sample([(step, index) for step in range(LATER, steps - 1) for index in range(TASKS)], count)
    generator.shuffle(kinds)
    drawn = [
        {"kind": kind, "step": step, "index": index, "seconds": 3.0}
        for kind, (step, index) in zip(kinds, places, strict=True)
    ]
    stops = [fault["step"] for fault in drawn if fault["kind"] == "sigterm"]
    for fault, stop in zip((f for f in drawn if f["kind"] == "corrupt_checkpoint"), stops, strict=False):
        fault["step"] = stop - 1
    return sorted(drawn, key=lambda fault: (fault["step"], fault["index"]))


def run_tree(model: Path, output: Path, steps: int) -> dict[str, Any]:
    """The undisturbed run: a tiny BERT, 3-way 1-shot episodes of BANKING77, in one process."""
    return {
        "name": "chaos",
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
        "outer": {"steps": steps, "tasks_per_step": TASKS},
        "workers": {"executor": "local"},
        "checkpoints": {"every": CHECKPOINT_EVERY, "keep": 3},
    }


def disturbed_tree(model: Path, output: Path, steps: int, struck: list[dict[str, Any]], address: str) -> dict[str, Any]:
    """The same run on worker groups, with faults."""
    workers = {"executor": "ray", "groups": {"min": 1, "max": NODES}, "address": address, "task_timeout_s": 10.0}
    return {**run_tree(model, output, steps), "workers": workers, "faults": struck}


def save_model(folder: Path) -> Path:
    """A random 3-layer BERT of width 32 with MiniLM's tokenizer."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=30522, **shape)).save_pretrained(folder)
    real = find_pretrained(MINILM).folder
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        (folder / name).write_bytes((real / name).read_bytes())
    return folder
