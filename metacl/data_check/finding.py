"""One thing that was looked at, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

MOST = 5
"""Of a long list so many are shown."""


@dataclass(frozen=True)
class Finding:
    """level : "fine"; "look", a person should; "wrong", the run cannot work. details : lines with places."""

    what: str
    found: str
    level: Literal["fine", "look", "wrong"] = "fine"
    details: Sequence[str] = field(default=())


def first_of(items: Sequence[str], most: int = MOST) -> list[str]:
    """The first few, and how many more there are."""
    return [*items[:most], *([f"… and {len(items) - most:,} more"] if len(items) > most else [])]
