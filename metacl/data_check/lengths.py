"""Lengths in the learner's own tokens, against the max_length that cuts them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from metacl.data_check.finding import Finding, first_of
from metacl.tasks import Surveyed

BATCH = 1024
"""Texts that are tokenized together."""

MOST_TEXTS = 50_000
"""Of more, every so-many-th is measured."""

Counts = Callable[[list[str]], list[int]]
"""Texts -> their lengths in tokens, uncut."""


class Lengths:
    """Counts tokens of texts, of `total` in all.

    window : characters shown of a text; None for all. marker : what follows it is scored, so that some must be kept.
    """

    def __init__(self, counts: Counts, max_length: int, total: int, window: int | None, marker: str | None) -> None:
        self._counts = counts
        self._max_length = max_length
        self._window = window
        self._marker = marker
        self._stride = max(1, -(-total // MOST_TEXTS))
        self._seen = 0
        self._waiting: list[Surveyed] = []
        self._lengths: list[int] = []
        self._hopeless: list[str] = []

    def see(self, example: Surveyed) -> None:
        """One text."""
        if self._seen % self._stride == 0:
            self._waiting.append(example)
        self._seen += 1
        if len(self._waiting) == BATCH:
            self._count()

    def _count(self) -> None:
        if not self._waiting:
            return
        self._lengths += self._counts([example.text[: self._window] for example in self._waiting])
        if self._marker is not None:
            begins = [example.text.index(self._marker) + len(self._marker) for example in self._waiting]
            prompts = self._counts([e.text[:begin] for e, begin in zip(self._waiting, begins, strict=True)])
            for example, length in zip(self._waiting, prompts, strict=True):
                if length >= self._max_length:
                    self._hopeless.append(f"{example.place}: {length} tokens before the completion")
        self._waiting = []

    def findings(self) -> list[Finding]:
        """How long they are, how many are cut, and where nothing that counts would be left."""
        self._count()
        if not self._lengths:
            return []
        lengths = np.array(self._lengths)
        half, most, longest = (int(np.percentile(lengths, q)) for q in (50, 95, 100))
        cut = int((lengths > self._max_length).sum())
        part = f" (every {self._stride}th text measured)" if self._stride > 1 else ""
        said = f"median {half}, 95 % up to {most}, longest {longest} tokens{part}"
        limit = f"learner.max_length {self._max_length} cuts {cut:,} of {len(lengths):,} ({cut / len(lengths):.1%})"
        found = [Finding("lengths", f"{said}; {limit}", "look" if cut > len(lengths) / 20 else "fine")]
        if self._hopeless:
            found.append(
                Finding(
                    "completions",
                    f"{len(self._hopeless):,} texts have nothing left of theirs. Raise learner.max_length above "
                    f"{self._max_length}, or leave them out",
                    "wrong",
                    first_of(self._hopeless),
                )
            )
        return found
