"""What an error of Ray's means: something was lost, or code on a worker raised something, and what to tell the user."""

from __future__ import annotations

import torch
from ray.exceptions import RayError, RayTaskError

from metacl.coordination.executor import out_of_memory
from metacl.errors import MetaclError


def is_loss(error: RayError) -> bool:
    """Whether Ray lost a process, a node or an object; else the code that it ran raised something.

    Ray's errors of lost actors, nodes and objects have no common parent below RayError.
    """
    return not isinstance(error, RayTaskError)


def error_of_ours(error: RayError, doing: str, less_memory: str) -> BaseException:
    """What code on a worker raised, as it should reach the user."""
    cause = error.cause if isinstance(error, RayTaskError) else None
    if isinstance(cause, MetaclError):
        return cause
    if isinstance(cause, (MemoryError, torch.OutOfMemoryError)):
        return out_of_memory(doing, cause, less_memory)
    return error


def essence(error: Exception) -> str:
    """The error's kind and the last line that says something: Ray puts the cause at the end, below a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no more is known'}"
