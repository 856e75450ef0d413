"""Which classes, domains or documents train, and which are kept back: drawn with a seed, or read from a file.

A file of splits is JSON, {"by": "class", "train": […], "valid": […], "test": […]}; `metacl data split` writes one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from metacl.errors import ConfigError, DataError
from metacl.tasks.episode import Split, TaskAddress, Unit
from metacl.tasks.randomness import AddressedRandom
from metacl.tasks.readers.json_file import load

T = TypeVar("T")
Names = dict[Split, list[str]]
SPLITS: tuple[Split, ...] = get_args(Split)


def _parts_of_one(fractions: tuple[float, float, float]) -> tuple[float, float, float]:
    if not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-6):  # so that nan is refused
        raise ValueError(f"data.fractions must be three parts of 1 (train, valid, test), got {fractions}")
    return fractions


Fractions = Annotated[tuple[float, float, float], AfterValidator(_parts_of_one)]
"""The shares of train, valid and test."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]


def as_by(text: str) -> Unit:
    """A word from the command line. Raises `ConfigError`."""
    if text == "class":
        return "class"
    if text == "domain":
        return "domain"
    raise ConfigError(f"--by {text}: expected class or domain.")


def as_fractions(text: str) -> tuple[float, float, float]:
    """Three numbers from the command line. Raises `ConfigError`."""
    try:
        train, valid, test = (float(part) for part in text.split(","))
        return _parts_of_one((train, valid, test))
    except ValueError:
        raise ConfigError(f"--fractions {text}: expected three parts of 1, for example 0.6,0.2,0.2.") from None


def split_at_random(items: Sequence[T], fractions: Sequence[float], seed: int) -> dict[Split, list[T]]:
    """Shuffle with `seed` and cut in three; depends on nothing but the arguments."""
    shuffled = AddressedRandom(TaskAddress("train", seed, 0, 0)).sample(items, len(items))
    first = round(fractions[0] * len(items))
    second = round((fractions[0] + fractions[1]) * len(items))  # rounded together: the three parts add up
    return {"train": shuffled[:first], "valid": shuffled[first:second], "test": shuffled[second:]}


def classes_by_domain(domains: Mapping[Split, Iterable[str]], domain_of: Mapping[str, str]) -> Names:
    """The classes of each split, where domains were split."""
    split_of = {domain: split for split, names in domains.items() for domain in names}
    classes: Names = {"train": [], "valid": [], "test": []}
    for name, domain in domain_of.items():
        if domain in split_of:
            classes[split_of[domain]].append(name)
    return classes


def write_splits(by: Unit, seed: int, fractions: Sequence[float], names: Names) -> str:
    """The content of a file of splits."""
    tree: dict[str, Any] = {"by": by, "seed": seed, "fractions": list(fractions)}
    tree.update((split, sorted(names[split])) for split in SPLITS)
    return json.dumps(tree, indent=1, ensure_ascii=False) + "\n"


def read_splits(path: Path, by: Unit, known: Iterable[str]) -> Names:
    """The names in a file of splits. Raises `DataError` if it is none, or names something twice or unknown."""
    tree = load(path)
    if not isinstance(tree, dict) or not all(_is_names(tree.get(split)) for split in SPLITS):
        raise DataError(f"{path}: expected {{'train': […], 'valid': […], 'test': […]}} with names in the lists.")
    said = tree.get("by", "class")
    if said != by:
        raise DataError(f"{path}: splits by {said}, but data.split_by is {by}. Set data.split_by={said}.")
    known = set(known)
    seen: dict[str, Split] = {}
    for split in SPLITS:
        for name in tree[split]:
            if name in seen:
                where = f"{seen[name]} and {split}" if seen[name] != split else f"{split} twice"
                raise DataError(f"{path}: {by} {name!r} stands in {where}; the splits must be disjoint.")
            if name not in known:
                raise DataError(f"{path}: {by} {name!r} of split {split!r} does not occur in the data.")
            seen[name] = split
    return {split: tree[split] for split in SPLITS}


def drawn_with(path: Path) -> tuple[Sequence[float], int] | None:
    """The fractions and the seed that a file of splits was drawn with; None where it says neither.

    Raises `DataError` if what it says is no fractions or no seed.
    """
    tree = load(path)
    if not isinstance(tree, dict) or ("fractions" not in tree and "seed" not in tree):
        return None
    try:
        fractions = TypeAdapter(Fractions).validate_python(tree.get("fractions"))
        return fractions, TypeAdapter(Seed).validate_python(tree.get("seed"))
    except ValidationError:
        raise DataError(
            f"{path}: expected 'fractions', three parts of 1, and 'seed', a whole number, as `metacl data split` "
            f"writes them; or neither."
        ) from None


def _is_names(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(name, str) for name in found)
