"""Keeps the heap from growing with the steps of a walk, where what is alive does not.

A step's temporaries are a hundred times larger than θ_k. Where each θ_k is an allocation of its own, it comes to lie
where the last step's temporaries were, and the next step's find no room in one piece. So the stored θ_k share a block.
What else is small and stays (autograd's nodes) still cuts free memory into pieces; on the way back, where the peak is,
whole pages in them go back to the system now and then: every time would cost a tenth of a step.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

STEPS_BETWEEN = 5
"""Steps of the way back from one giving back to the next."""


class TrajectoryMemory:
    """Room for the parameters of some steps.

    Parameters
    ----------
    steps : int
        How many times `hold` is called at most.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._used = 0
        self._walked_back = 0
        self._block: Tensor | None = None

    def hold(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Copies of `tensors`, but for leaves, which live on anyway, and what the block is not made for."""
        moved = [t for t in tensors if not t.is_leaf and t.is_contiguous() and t.dtype == tensors[0].dtype]
        size = sum(tensor.numel() for tensor in moved)
        if not size:
            return list(tensors)
        if self._block is None:
            self._block = moved[0].new_empty(self._steps, size)
        if self._used == self._steps or self._block.shape[1] != size:
            return list(tensors)
        row = self._block[self._used].data  # with a version of its own: autograd sees that others are written, else
        self._used += 1
        with torch.no_grad():
            torch.cat([tensor.flatten() for tensor in moved], out=row)
        copies = iter(part.view(t.shape) for part, t in zip(row.split([t.numel() for t in moved]), moved, strict=True))
        kept = {id(tensor) for tensor in moved}
        return [next(copies) if id(tensor) in kept else tensor for tensor in tensors]

    def before_step_back(self) -> None:
        """Called before each step of the way back."""
        if self._walked_back % STEPS_BETWEEN == 0:
            _give_back_free_pages()()
        self._walked_back += 1


@cache
def _give_back_free_pages() -> Callable[[], object]:
    """glibc's malloc_trim, which hands back free pages in the middle of the heap, too; elsewhere nothing."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return lambda: None
    return lambda: trim(ctypes.c_size_t(0))
