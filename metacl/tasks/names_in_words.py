"""The name of a class as a text."""

from __future__ import annotations

import re


def in_words(name: str) -> str:
    """``card_arrival`` and ``cardArrival`` become "card arrival", ``books / fiction`` "books fiction"."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.split(r"[\W_]+", apart)).strip().lower() or name
