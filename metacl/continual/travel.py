"""How tensors of a run go from process to process: as one flat buffer, which Ray hands over without a copy.

Tensors that are pickled one by one take several times as long. On arrival each gets memory of its own: kernels may sum
differently on differently aligned memory. In one process nothing is packed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Layout = tuple[tuple[tuple[str, torch.dtype, tuple[int, ...]], ...], ...]
"""Name, type and shape of every tensor, of several dicts, in their order."""

Bytes = NDArray[np.uint8]


class Travels:
    """Base of dataclasses with `params`, a dict of tensors, and `states`, a tuple of such; the rest is plain."""

    params: dict[str, Tensor]
    states: tuple[dict[str, Tensor], ...]

    def on(self, device: torch.device) -> Self:
        """The same with its tensors there."""
        params, *states = [
            {name: tensor.to(device) for name, tensor in tensors.items()} for tensors in (self.params, *self.states)
        ]
        return replace(self, params=params, states=tuple(states))  # type: ignore[type-var]  # what derives is one

    def __reduce__(self) -> tuple[Any, ...]:
        rest = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        layout, flat = packed([rest.pop("params"), *rest.pop("states")])
        return _arrived, (type(self), layout, flat, rest)


def packed(dicts: Sequence[dict[str, Tensor]]) -> tuple[Layout, Bytes]:
    """Where each tensor lies, and all their bytes."""
    layout = tuple(tuple((name, t.dtype, tuple(t.shape)) for name, t in tensors.items()) for tensors in dicts)
    flat = np.empty(sum(t.nbytes for tensors in dicts for t in tensors.values()), np.uint8)
    position = 0
    for tensors in dicts:
        for tensor in tensors.values():
            flat[position : position + tensor.nbytes] = _bytes_of(tensor.detach().cpu().contiguous())
            position += tensor.nbytes
    return layout, flat


def unpacked(layout: Layout, flat: Bytes) -> list[dict[str, Tensor]]:
    """What was packed, in the same order."""
    position, dicts = 0, []
    for entries in layout:
        tensors: dict[str, Tensor] = {}
        for name, dtype, shape in entries:
            tensors[name] = torch.empty(shape, dtype=dtype)
            size = math.prod(shape) * dtype.itemsize
            _bytes_of(tensors[name])[:] = flat[position : position + size]
            position += size
        dicts.append(tensors)
    return dicts


def _bytes_of(tensor: Tensor) -> Bytes:
    """Its memory, as an array."""
    found: Bytes = tensor.reshape(-1).view(torch.uint8).numpy()
    return found


def _arrived(kind: Any, layout: Layout, flat: Bytes, rest: dict[str, Any]) -> Any:
    params, *states = unpacked(layout, flat)
    return kind(params=params, states=tuple(states), **rest)
