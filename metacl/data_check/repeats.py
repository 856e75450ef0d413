"""Texts that occur more than once: harmless within a class, a conflict across classes, leakage across splits."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass

from metacl.data_check.finding import Finding, first_of
from metacl.tasks import Split, Surveyed


@dataclass(frozen=True)
class _Seen:
    group: str
    split: Split
    place: str


class Repeats:
    """Compares texts apart from case and white space; remembers a hash of each, not the text."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._seen: dict[bytes, list[_Seen]] = {}
        self._within: list[str] = []

    def see(self, example: Surveyed) -> None:
        """Examples in no split are passed over: nothing is drawn from them."""
        if example.split is None:
            return
        plain = " ".join(example.text.casefold().split())
        key = hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        here = _Seen(example.group, example.split, example.place)
        known = self._seen.setdefault(key, [])
        same = next((other for other in known if (other.group, other.split) == (here.group, here.split)), None)
        if same is None:
            known.append(here)
            return
        self._within.append(f"{here.place}: as {same.place}")

    def findings(self) -> list[Finding]:
        """Duplicates, leakage, conflicts."""
        leaks: list[str] = []
        conflicts: list[str] = []
        for places in self._seen.values():
            for first, other in itertools.pairwise(places):
                line = f"{other.place} ({other.split}, {other.group}): as {first.place} ({first.split}, {first.group})"
                (leaks if first.split != other.split else conflicts).append(line)
        within = f"{len(self._within):,} within a {self._unit} and split; exact ones are drawn as one"
        return [
            Finding("duplicates", within if self._within else "none", "fine", first_of(self._within)),
            Finding(
                "leakage",
                f"{len(leaks):,} texts stand in two splits; remove them from one" if leaks else "none across splits",
                "look" if leaks else "fine",
                first_of(leaks),
            ),
            Finding(
                "conflicts" if self._unit == "class" else "shared",
                f"{len(conflicts):,} texts stand in two {_plural(self._unit)} of one split" if conflicts else "none",
                "look" if conflicts else "fine",
                first_of(conflicts),
            ),
        ]


def _plural(unit: str) -> str:
    return "classes" if unit == "class" else "domains"
