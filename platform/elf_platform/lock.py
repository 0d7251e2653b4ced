"""One process at a time in a folder of the storage: two drivers of one run would write over each other."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

LOCK = "lock"
WAIT_S = 1.0
GLANCES, GLANCE_S = 3, 0.05
"""``is_held`` holds a lock for a moment itself, so that one look proves nothing."""


@contextlib.contextmanager
def exclusive(folder: Path, what: str, *, wait: Callable[[str], None] | None = None, other: str = "--name") -> Iterator[None]:
    """Holds ``folder`` until the block ends; the system lets go of it when the process dies, however that happens. A folder in which the
    block left nothing is gone afterwards.

    wait: is told who holds it, and the call then waits; without it, raises ValueError saying who does. ``what`` names it in both.
    other: the setting that chooses another folder.
    A storage that knows no locks is taken as free."""
    told, looks = False, GLANCES
    while True:
        file = _open(folder)
        if _take(file.fileno()):
            if _is_there(file, folder / LOCK):
                break
            file.close()  # its holder found nothing to keep and removed it
            continue
        with file:
            file.seek(0)
            message = f"{what} is in use by {_holder(file.read())}"
        looks -= 1
        if wait is None and looks:
            time.sleep(GLANCE_S)
            continue
        if wait is None:
            raise ValueError(f"{message}; wait for it, stop it, or give this run another {other}")
        if not told:
            wait(f"{message}; waiting for it")
            told = True
        time.sleep(WAIT_S)
    with file:
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}))
        file.flush()
        try:
            yield
        finally:
            _leave(folder)


def _open(folder: Path) -> IO[str]:
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return (folder / LOCK).open("a+")
        except FileNotFoundError:  # another process has just removed the empty folder
            continue
        except FileExistsError:  # the same, between the two looks of mkdir
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                raise


def _is_there(file: IO[str], path: Path) -> bool:
    """Whether the open file is still the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _leave(folder: Path) -> None:
    with contextlib.suppress(OSError):
        if [path.name for path in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
            folder.rmdir()


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
