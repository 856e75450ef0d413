"""Whether there is enough to draw from: different examples of every class or domain for an episode's shape."""

from __future__ import annotations

from collections.abc import Mapping

from metacl.errors import DataError
from metacl.tasks.episode import EpisodeShape, Split, Unit


def check_sizes(name: str, split: Split, shape: EpisodeShape, sizes: Mapping[str, int], unit: Unit) -> None:
    """Raise `DataError` if one of `split` has less than shots + queries.

    name : the data, for the message. sizes : class or domain -> different examples.
    """
    need = shape.shots + shape.queries
    each, plural = ("examples a class", "classes") if unit == "class" else ("documents a domain", "domains")
    small = [f"{member!r} ({size})" for member, size in sizes.items() if size < need]
    if small:
        raise DataError(
            f"{name}: {shape.shots} shots + {shape.queries} queries need {need} different {each}, "
            f"but in split {split!r} these have fewer: {', '.join(small[:5])}"
            f"{f' and {len(small) - 5} more' if len(small) > 5 else ''}. "
            f"Lower episodes.shots or episodes.queries, or remove these {plural}."
        )
