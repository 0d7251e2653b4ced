"""Signals that ask a job to stop: Ctrl-C, and SIGTERM, which is what `ray job stop`, a scheduler or a shutting-down machine send."""

import signal
import threading
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; like Ctrl-C, so that whatever cleans up after one cleans up after the other."""


def raise_on_sigterm() -> None:
    """Let SIGTERM raise ``Terminated`` in the main thread. Ray replaces the handler when it connects: call this again afterwards."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated
