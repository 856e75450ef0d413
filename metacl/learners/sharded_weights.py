"""Filling a partitioned model from safetensors, one tensor at a time: no process ever holds more than one whole.

The model's parameters are DeepSpeed's, made under `zero.Init` and still empty. Files are mapped into memory, and of a
tensor a rank keeps its own part.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from metacl.errors import ConfigError
from metacl.learners.loading import check_complete

LEGACY = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
"""What parameters were called in BERT's first files."""


def fill(model: nn.Module, prefix: str, folder: Path, dtypes: dict[int, torch.dtype]) -> None:
    """Give every parameter of `model` its part of the weights in `folder`.

    Parameters
    ----------
    prefix : str
        What the base model is called inside one with a head (``transformer``): files are written with it or without.
    dtypes : id of a parameter -> type
        Of those that are not to be float32.

    Raises
    ------
    ConfigError
        A file is missing or damaged, or lacks a tensor, or has it in another shape.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    parameters: dict[str, Any] = dict(model.named_parameters())
    try:
        files = _Files(folder)
        lacking = set()
        for name, parameter in parameters.items():
            tensor = files.read([key for alias in names[id(parameter)] for key in _keys(alias, prefix)])
            if tensor is None or tensor.shape != parameter.ds_shape:
                lacking.add(name)
                tensor = torch.zeros(parameter.ds_shape)
            keep_part(parameter, tensor.to(dtypes.get(id(parameter), torch.float32)))
            del tensor
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ConfigError(f"learner.model: {folder}: cannot be loaded: {error}") from None
    check_complete(folder, lacking)


def keep_part(parameter: Any, whole: Tensor) -> None:
    """Let a partitioned parameter keep this rank's part of `whole`."""
    parameter.ds_tensor = None  # made anew, in the type of `whole`
    parameter.data = whole.to(parameter.device)
    parameter.ds_status = type(parameter.ds_status).AVAILABLE
    parameter.partition(has_been_updated=True)


def _keys(name: str, prefix: str) -> Iterator[str]:
    """What a parameter may be called in a file."""
    for form in (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}.")):
        yield form
        for now, then in LEGACY:
            if form.endswith(now):
                yield form.removesuffix(now) + then


class _Files:
    """The safetensors files of a folder as one mapping of names to tensors."""

    def __init__(self, folder: Path) -> None:
        index = folder / "model.safetensors.index.json"
        single = folder / "model.safetensors"
        if not single.exists() and not index.exists():
            raise ConfigError(f"learner.model: {folder}: no model.safetensors there; ZeRO-3 loads from nothing else.")
        parts = {single}
        if not single.exists():
            parts = {folder / name for name in json.loads(index.read_text("utf-8"))["weight_map"].values()}
        self._file_of: dict[str, Any] = {}
        for path in sorted(parts):
            file = safe_open(path, framework="pt")
            self._file_of.update(dict.fromkeys(file.keys(), file))

    def read(self, keys: Iterable[str]) -> Tensor | None:
        """The tensor of the first key that is there."""
        found = next((key for key in keys if key in self._file_of), None)
        return None if found is None else self._file_of[found].get_tensor(found)
