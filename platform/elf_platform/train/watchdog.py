"""A run that hangs says where: after a while without progress each worker writes the stacks of its threads to the run folder."""

import faulthandler
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

STALLS_FOLDER = "stalls"
_LONGEST_WAIT_S = 3600.0  # Event.wait refuses very long ones


class Watchdog:
    """Watches the block it is entered for: ``with Watchdog(...) as watchdog:`` and ``watchdog.beat(step)`` at each step.

    When no beat comes for ``seconds``, from the start of the block or from the last one, the stacks of all threads of this process go
    to ``stalls/rank-<rank>-<unix seconds>.txt`` in the run ``folder`` and ``notify`` is called with one line, on the watching thread; again
    after each further period without a beat. It watches from a thread, so it sees a main thread that waits for a lock, a collective or
    a disk, but not one in C code that keeps Python's global lock. 0 seconds: watches nothing.
    """

    def __init__(self, seconds: float, folder: Path, rank: int, notify: Callable[[str], None]) -> None:
        assert seconds >= 0
        self.seconds, self.folder, self.rank, self._notify = seconds, folder, rank, notify
        self._step: int | None = None
        self._beaten = time.monotonic()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def beat(self, step: int) -> None:
        """There was progress, at this step. Costs two attribute writes."""
        self._step = step
        self._beaten = time.monotonic()

    def __enter__(self) -> "Watchdog":
        self._beaten = time.monotonic()
        if self.seconds:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(5.0)  # a notification that hangs must not hold up the end of the run

    def _watch(self) -> None:
        reported = -float("inf")
        while True:
            left = max(self._beaten, reported) + self.seconds - time.monotonic()
            if left > 0:
                if self._over.wait(min(left, _LONGEST_WAIT_S)):
                    return
                continue
            self._report()
            reported = time.monotonic()

    def _report(self) -> None:
        """Never raises: a full disk or a notification that fails must not end the watch."""
        silence = time.monotonic() - self._beaten
        since = "since it started" if self._step is None else f"since step {self._step}"
        who = f"worker {self.rank} (process {os.getpid()} on {socket.gethostname()})"
        line = f"{who} has made no progress for {silence:.0f} s {since}"
        try:
            line += f"; the stacks of its threads are in {self._dump(line)}"
        except OSError as error:
            line += f"; the stacks of its threads could not be written to {self.folder / STALLS_FOLDER}: {error}"
        try:
            self._notify(line)
        except Exception as error:
            sys.stderr.write(f"{line}\n(and this could not be passed on: {error!r})\n")

    def _dump(self, line: str) -> Path:
        path = self.folder / STALLS_FOLDER / f"rank-{self.rank:05d}-{int(time.time())}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        # faulthandler writes identifiers, not names.
        names = "".join(f"0x{thread.ident or 0:016x} is {thread.name}\n" for thread in threading.enumerate())
        with path.open("a", encoding="utf-8") as file:  # appends where two stalls fall into one second
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S %z')}: {line}\n\n{names}\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        return path
