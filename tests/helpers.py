"""Small stand-ins for the expensive parts: a learner of one layer, and the config that goes with it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metacl.config import RunConfig
from metacl.learners.base import CPU, Batch, Learner, LearnerConfig, Params
from metacl.learners.engine import Engine

INPUTS = 6
"""Numbers that a text becomes."""


class TinyLearner(Learner):
    """features = tanh(frozen linear layer + adapter), outputs = linear head. A text is a random vector of its own."""

    def __init__(self, seed: int = 0, width: int = 4, dtype: torch.dtype = torch.float32) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.base = nn.Linear(INPUTS, width).to(dtype).requires_grad_(False)
            self.initial: Params = {
                "adapter.bias": torch.zeros(width, dtype=dtype),
                "adapter.weight": 0.1 * torch.randn(width, INPUTS, dtype=dtype),
            }
        self.dtype = dtype
        self.width = width
        self.device = CPU
        self.base_parameters = sum(parameter.numel() for parameter in self.base.parameters())

    def encode(self, texts: Sequence[str], labels: Sequence[int] | None) -> Batch:
        rows = [np.random.default_rng(zlib.crc32(text.encode())).standard_normal(INPUTS) for text in texts]
        targets = None if labels is None else torch.tensor(labels)
        return Batch.single(torch.tensor(np.array(rows), dtype=self.dtype), targets)

    def features(self, params: Params, batch: Batch) -> Tensor:
        weight = self.base.weight + params["adapter.weight"]
        return torch.tanh(F.linear(batch.input, weight, self.base.bias + params["adapter.bias"]))

    def outputs(self, params: Params, batch: Batch) -> Tensor:
        return F.linear(self.features(params, batch), params["head.weight"], params["head.bias"])

    def loss(self, params: Params, batch: Batch) -> Tensor:
        assert batch.targets is not None
        return F.cross_entropy(self.outputs(params, batch), batch.targets)

    def peft_config(self) -> dict[str, Any]:
        return {}


class TinyLearnerConfig(LearnerConfig):
    """Given to a config as an object; not registered, so that no list of learners grows by it."""

    width: int = 4
    twice_differentiable: bool = True

    def build(self, seed: int, device: torch.device = CPU, engine: Engine | None = None) -> TinyLearner:
        return TinyLearner(seed, self.width)

    @property
    def double_backward(self) -> bool:
        return self.twice_differentiable

    def source(self) -> str:
        return "a tiny test learner"


def write_labelled_csv(path: Path, classes: int = 10, per_class: int = 8) -> Path:
    """A CSV file of distinct texts."""
    rows = [f"text {i} of class {c},class{c}" for c in range(classes) for i in range(per_class)]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


def tiny_config(folder: Path, **sections: Any) -> RunConfig:
    """A run of the tiny learner on a small CSV file in `folder`, its output in ``folder/run``."""
    data = folder / "data.csv"
    if not data.exists():
        write_labelled_csv(data)
    defaults: dict[str, Any] = {
        "name": "tiny",
        "output": folder / "run",
        "learner": TinyLearnerConfig(),
        "data": {"name": "labelled_text", "path": data},
        "episodes": {"ways": 3, "shots": 2, "queries": 2},
        "inner": {"steps": 2},
        "workers": {"executor": "local"},
    }
    return RunConfig(**{**defaults, **sections})
