"""SIGINT and SIGTERM during a run: abandon the step that is being computed, never the state.

The first signal stops the run at the next safe place; a second SIGINT kills it the ordinary way.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopRequested(BaseException):
    """Raised where a step may be abandoned. A BaseException, so that no error handling swallows it."""


_active: StopSignals | None = None
"""Signal handlers belong to the process, and so does the one object behind them."""


class StopSignals:
    """While entered, SIGINT and SIGTERM become `StopRequested`, raised only inside `abandonable`."""

    def __init__(self) -> None:
        self._requested = False
        self._may_raise = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        global _active
        _active = self
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        global _active
        _active = None
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def abandonable(self) -> Iterator[None]:
        """Work in here can be thrown away at any moment."""
        if self._requested:
            raise StopRequested
        self._may_raise = True
        try:
            yield
        finally:
            self._may_raise = False

    @contextmanager
    def hold(self) -> Iterator[None]:
        """No `StopRequested` in here; it is raised at the end instead."""
        could, self._may_raise = self._may_raise, False
        try:
            yield
        finally:
            self._may_raise = could
        if self._requested and could:
            raise StopRequested

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._requested = True
        if self._may_raise:
            raise StopRequested


@contextmanager
def held() -> Iterator[None]:
    """For short calls into foreign code that a signal handler must not raise out of.

    Ray's C++ core turns an exception of the handler into a SystemError. `StopRequested` is raised when the call is
    over. Without `StopSignals` there is nothing to hold.
    """
    if _active is None:
        yield
        return
    with _active.hold():
        yield
