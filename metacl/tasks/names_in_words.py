"""The name of a class as a text."""

from __future__ import annotations

import re
from collections.abc import Iterable


def in_words(name: str) -> str:
    """``card_arrival`` and ``cardArrival`` become "card arrival", ``books / fiction`` "books fiction"."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.split(r"[\W_]+", apart)).strip().lower() or name


def unfit_as_examples(names: Iterable[str]) -> str | None:
    """Why the names of classes cannot be examples of them, as the middle of a sentence; None if they can."""
    known: dict[str, str] = {}
    for name in names:
        words = in_words(name)
        if not any(map(str.isalpha, words)):
            return f"{name!r} is no word"
        if words in known:
            return f"{known[words]!r} and {name!r} are the same words"
        known[words] = name
    return None
