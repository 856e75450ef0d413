"""Counting the tensors that are alive while something runs: now, and at the peak. Works on fake tensors, too."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveMemory(TorchDispatchMode):
    """A context in which every storage that an operation makes is counted until it is let go.

    Attributes
    ----------
    now, peak : int
        Bytes. What was there before does not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def know(self, tensors: Any) -> None:
        """Storages that were there before."""
        for tensor in tree_iter(tensors):
            if isinstance(tensor, torch.Tensor):
                self._seen.add(tensor.untyped_storage())

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and look at what it made; a view's storage and an argument's are known."""
        self.know((args, kwargs))
        made = function(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self._seen:
                storage = tensor.untyped_storage()
                self._seen.add(storage)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, storage.nbytes())
        return made

    def _gone(self, size: int) -> None:
        self.now -= size
