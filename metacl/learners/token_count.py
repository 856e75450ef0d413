"""Counting the tokens that go through models while something runs, whoever asks them."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Self

from torch import Tensor

from metacl.learners.ranks import RankGroup


class TokenCount:
    """A context in which the innermost count is told of every forward of a transformer.

    A token counts once a forward, whether that goes through all layers or through those above the frozen ones, and a
    backward is no forward. Padding and learned prompts are no tokens.
    """

    def __init__(self) -> None:
        self._total = 0
        self._ran: dict[RankGroup, Tensor] = {}
        self._outer: Token[TokenCount | None] | None = None

    def __enter__(self) -> Self:
        self._outer = _COUNTING.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._outer is not None
        _COUNTING.reset(self._outer)

    def add(self, tokens: int) -> None:
        """So many more, the same on every rank."""
        self._total += tokens

    def ran(self, tokens: Tensor, ranks: RankGroup) -> None:
        """This rank's part of a forward, a scalar on its device; nobody waits for it."""
        self._ran[ranks] = self._ran[ranks] + tokens if ranks in self._ran else tokens

    @property
    def total(self) -> int:
        """So far, over all ranks, each of which has to ask."""
        self._total += sum(int(ranks.total(tokens)) for ranks, tokens in self._ran.items())
        self._ran.clear()
        return self._total


_COUNTING: ContextVar[TokenCount | None] = ContextVar("token count", default=None)


def counting() -> TokenCount | None:
    """The innermost count that runs; None if none does."""
    return _COUNTING.get()
