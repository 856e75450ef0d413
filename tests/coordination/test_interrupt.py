"""Signals during a run: abandoned at a safe place, never in the middle of a save."""

import os
import signal
import threading

import pytest

from metacl.coordination.interrupt import StopRequested, StopSignals


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_abandons_what_may_be_abandoned(number):
    done = []
    with StopSignals() as signals, pytest.raises(StopRequested), signals.abandonable():
        send(number)
        done.append("never")
    assert done == []


def test_waits_for_the_next_safe_place():
    done = []
    with StopSignals() as signals:
        send()
        done.append("saved")
        with pytest.raises(StopRequested), signals.abandonable():
            done.append("never")
    assert done == ["saved"]


def test_does_not_raise_after_the_safe_place():
    with StopSignals() as signals:
        with signals.abandonable():
            pass
        send()  # would raise here


def test_second_sigint_is_the_ordinary_one():
    with StopSignals(), pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)
        send(signal.SIGINT)


def test_second_sigterm_changes_nothing():
    with StopSignals():
        send(signal.SIGTERM)
        send(signal.SIGTERM)


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_error_handling_does_not_swallow_it():
    assert not issubclass(StopRequested, Exception)


def test_works_in_other_threads_without_handlers():
    caught = []

    def run():
        try:
            with StopSignals() as signals, signals.abandonable():
                pass
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert caught == []
