"""Texts that were decoded wrongly before they came here: valid UTF-8, but not what was written."""

from __future__ import annotations

import re

from metacl.data_check.finding import Finding, first_of
from metacl.tasks import Surveyed

SIGNS = {
    "replacement characters (U+FFFD)": re.compile("\ufffd"),
    "UTF-8 that was read as Latin-1 (as in “Ã©” for “é”)": re.compile("[ÃÂ][\u0080-\u00bf]|â€|ðŸ"),
    "control characters": re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f]"),
}


class Encodings:
    """Looks for signs of damage; all files read are UTF-8, or they would have been refused."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {sign: [] for sign in SIGNS}

    def see(self, example: Surveyed) -> None:
        """One text."""
        for sign, pattern in SIGNS.items():
            if pattern.search(example.text):
                self._places[sign].append(f"{example.place}: {example.text[:60]!r}")

    def findings(self) -> list[Finding]:
        """One a kind of damage, or that there is none."""
        found = [
            Finding("encoding", f"{len(places):,} texts with {sign}", "look", first_of(places))
            for sign, places in self._places.items()
            if places
        ]
        return found or [Finding("encoding", "UTF-8, no signs of damage")]
