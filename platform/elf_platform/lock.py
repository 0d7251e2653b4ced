"""One process at a time in a folder of the storage: two drivers of one run would write over each other."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LOCK = "lock"
WAIT_S = 1.0


@contextlib.contextmanager
def exclusive(folder: Path, what: str, *, wait: Callable[[str], None] | None = None, other: str = "--name") -> Iterator[None]:
    """Holds ``folder`` until the block ends; the system lets go of it when the process dies, however that happens.

    wait: is told who holds it, and the call then waits; without it, raises ValueError saying who does. ``what`` names it in both.
    other: the setting that chooses another folder.
    A storage that knows no locks is taken as free."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        told = False
        while not _take(file.fileno()):
            file.seek(0)
            message = f"{what} is in use by {_holder(file.read())}"
            if wait is None:
                raise ValueError(f"{message}; wait for it, stop it, or give this run another {other}")
            if not told:
                wait(f"{message}; waiting for it")
                told = True
            time.sleep(WAIT_S)
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}))
        file.flush()
        yield


def is_held(folder: Path) -> bool:
    """Whether another process holds ``folder`` at this moment."""
    try:
        with (folder / LOCK).open("r+") as file:
            return not _take(file.fileno())
    except OSError:  # nobody ever held it
        return False


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _holder(text: str) -> str:
    try:
        known = json.loads(text)
        return f"process {known['pid']} on {known['host']} since {known['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
