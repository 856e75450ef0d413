"""Episodes as a person would read them."""

from __future__ import annotations

from collections.abc import Sequence

from metacl.tasks import ArrayEpisode, Episode

MOST_LINES = 10
WIDTH = 100


def readable(episode: Episode | ArrayEpisode) -> list[str]:
    """Lines: the address, the classes, the support and query texts with their classes."""
    lines = [str(episode.address)]
    if isinstance(episode, ArrayEpisode):
        for part, (inputs, targets) in (("support", episode.support), ("query", episode.query)):
            lines.append(f"  {part}: inputs {inputs.shape}, targets {targets.shape}")
        return lines
    for part, texts, labels in (
        ("support", episode.support_texts, episode.support_labels),
        ("query", episode.query_texts, episode.query_labels),
    ):
        lines.append(f"  {part}, {len(texts)}")
        lines += _shown(texts, [episode.class_names[label] for label in labels])
    return lines


def _shown(texts: Sequence[str], names: Sequence[str]) -> list[str]:
    lines = [f"    {name}: {_short(text)}" for text, name in zip(texts[:MOST_LINES], names, strict=False)]
    return lines + ([f"    … and {len(texts) - MOST_LINES} more"] if len(texts) > MOST_LINES else [])


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= WIDTH else plain[: WIDTH - 1] + "…"
