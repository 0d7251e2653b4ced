"""Signals that ask a job to stop: Ctrl-C, and SIGTERM, which is what `ray job stop`, a scheduler or a shutting-down machine send.

A job that is stopped says so in one line, at whatever moment, and ends with the status that shells give to such an end (128 + the signal).
"""

import os
import signal
import threading
from types import FrameType

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; like Ctrl-C, so that whatever cleans up after one cleans up after the other."""


def raise_on_sigterm() -> None:
    """Let SIGTERM raise ``Terminated`` in the main thread. Ray replaces the handler when it connects: call this again afterwards."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def stopped(stop: KeyboardInterrupt) -> tuple[str, int]:
    """(the word for the user, exit status) of a stop."""
    number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
    return WORDS[number], 128 + number


def stop_at_once() -> None:
    """For the seconds in which a job's libraries are imported, until ``raise_on_sigterm``: a stop ends the process there and then, since
    there is nothing to clean up, and an exception in the middle of an import may be taken for a library that is not there."""
    for number in WORDS:
        signal.signal(number, _leave)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, f"\n{WORDS[signal.Signals(number)]}\n".encode())
    os._exit(128 + number)
