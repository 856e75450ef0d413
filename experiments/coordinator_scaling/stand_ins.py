"""Ranks and shards that answer at once. They import nothing of metacl, so that a dozen of them start in seconds."""

from __future__ import annotations

import pickle
import time
from typing import Any


class Answer:
    """Becomes what was pickled when the coordinator reads it; who sends it need not know what that is."""

    def __init__(self, pickled: bytes) -> None:
        self.pickled = pickled

    def __reduce__(self) -> tuple[Any, ...]:
        """As `pickle` asks for it."""
        return pickle.loads, (self.pickled,)


class Rank:
    """Answers every task with the same reply, after some milliseconds."""

    def prepare(self, reply: bytes) -> None:
        """What to answer from now on."""
        self._reply = Answer(reply)

    def run(self, work: bytes, address: bytes, parameters: Any) -> Answer:
        """Nothing is computed."""
        time.sleep(0.01)
        return self._reply


class Shard:
    """Answers as a shard that has all its parts."""

    def prepare(self, combined: bytes) -> None:
        """What to answer when the result is asked for."""
        self._combined = Answer(combined)

    def begin(self, version: str) -> None:
        """Nothing to forget."""

    def combine(self, portion: int, counted: Any) -> bool:
        """All were here."""
        return True

    def result(self, portions: int) -> Answer:
        """What was prepared."""
        return self._combined
