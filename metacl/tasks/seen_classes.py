"""Which classes one source trains with and another asks about: they would not be unseen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from metacl.tasks.episode import Split, TaskSource


@runtime_checkable
class _WithClasses(Protocol):
    @property
    def classes(self) -> Mapping[Split, Sequence[Any]]: ...


def seen_classes(trained: TaskSource, asked: TaskSource) -> list[str]:
    """The validation and test classes of `asked` that `trained` trains with, sorted.

    Classes are told apart within one origin (`TaskSource.origin`); nothing is read of sources that share none.
    """
    found: set[str] = set()
    for own in trained.parts:
        for other in asked.parts:
            if own.origin is not None and own.origin == other.origin:
                shown, kept = own.open(), other.open()
                if isinstance(shown, _WithClasses) and isinstance(kept, _WithClasses):
                    unseen = {*kept.classes["valid"], *kept.classes["test"]}
                    found |= {str(name) for name in unseen.intersection(shown.classes["train"])}
    return sorted(found)
