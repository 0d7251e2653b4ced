"""The ways to write: a file that is whole or not there, lines that are added whole or not at all, and a folder that is whole or not there.

All that is committed is on the disk, so that it outlives a loss of power. What killed processes leave is found by its name, and by a lock
that its writer holds: a process number proves nothing, since containers and machines that share a storage have numbers of their own.
"""

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY, REPLACED = ".writing-", ".replaced-"
"""How the names of what is not committed yet begin, and of what is about to go."""


@contextmanager
def committing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary file beside ``path``; when the block ends well it is synced to disk and takes its name, else it goes.

    A reader therefore sees the old file, the new file or none, never half of one; unless ``durable``, a loss of power may undo it.
    """
    temporary, lock = _claimed(_beside(path, TEMPORARY), folder=False)
    try:
        yield temporary
        if durable:
            sync(temporary)
        temporary.replace(path)
        if durable:
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(lock)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a small UTF-8 file through ``committing``."""
    with committing(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_lines(path: Path, lines: Iterable[str], *, durable: bool = False) -> None:
    """Add lines, given without their ends, in one write under a lock, so that several processes may: a line is there whole or not at all.

    One that a killed writer left unfinished is cut off first. What does not fit on the disk is taken back. Raises OSError for that."""
    data = "".join(f"{line}\n" for line in lines).encode("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        locked = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: what is unfinished may be another's line in the making
            locked = False
        size = file.seek(0, os.SEEK_END)
        whole = _end_of_lines(file.fileno(), size)
        if whole < size and locked:
            os.ftruncate(file.fileno(), size := whole)
        elif whole < size:
            data = b"\n" + data
        written = file.write(data)
        if written < len(data):
            if locked:
                os.ftruncate(file.fileno(), size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if durable:
            os.fsync(file.fileno())
    if durable:
        sync(path.parent)


@contextmanager
def committing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder``; when the block ends well it is ``published``, else it goes."""
    with temporary_folder(folder) as temporary:
        yield temporary
        publish(temporary, folder)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder``, gone after the block unless ``publish`` was called; those of killed writers go first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder.parent, folder.name)
    temporary, lock = _claimed(_beside(folder, TEMPORARY), folder=True)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


def publish(temporary: Path, folder: Path) -> None:
    """Force all of a written folder to disk and give it its name; a folder that has it goes."""
    for path in (*temporary.rglob("*"), temporary):
        sync(path)
    old = _beside(folder, REPLACED) if folder.exists() else None
    if old is not None:
        folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        if old is not None:
            old.rename(folder)
        raise
    sync(folder.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def discard(folder: Path) -> None:
    """Remove a folder; half-removed it does not bear its name."""
    gone = _beside(folder, REPLACED)
    folder.rename(gone)
    shutil.rmtree(gone)


def clear_leftovers(parent: Path, name: str = "") -> None:
    """Remove what killed writers left in ``parent``: of files and folders called ``name``, or of all. What its writer still holds stays."""
    for prefix in (TEMPORARY, REPLACED):
        for path in parent.glob(f"{prefix}{glob.escape(name)}-*" if name else f"{prefix}*"):
            with contextlib.suppress(OSError):  # held, or gone meanwhile; without locks on the file system it stays
                lock = os.open(path, os.O_RDONLY)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                finally:
                    os.close(lock)


def inside(folder: Path, name: str, *, links: bool = False) -> Path:
    """The file of ``folder`` that is called ``name`` in a file of that folder, which may come from anywhere.

    links: it may be a link to elsewhere, as in the caches of hubs, because what it holds is checked. Raises ValueError for a name that
    leads out of the folder."""
    path = folder / name
    within = "\0" not in name and os.path.normpath(path) != os.path.normpath(folder) and Path(os.path.normpath(path)).is_relative_to(
        os.path.normpath(folder)
    )
    if within and not links:
        within = path.resolve().is_relative_to(folder.resolve())
    if not within:
        raise ValueError(
            f"{folder} names {name!r} among its files, which leads out of it: it was not written by this program, or it was edited. "
            "Nothing outside a folder is read or sent because of what the folder says"
        )
    return path


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Force a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path, prefix: str) -> Path:
    return path.with_name(f"{prefix}{path.name}-{secrets.token_hex(6)}")


def _claimed(path: Path, *, folder: bool) -> tuple[Path, int]:
    """The new empty file or folder, and the descriptor that holds its lock."""
    while True:
        path.mkdir() if folder else path.touch(exist_ok=False)
        lock = os.open(path, os.O_RDONLY)
        with contextlib.suppress(OSError):  # without locks on the file system nothing clears leftovers either
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists():
            return path, lock
        os.close(lock)  # cleared by another in the moment before it was locked


def _end_of_lines(descriptor: int, size: int) -> int:
    """The place after the last line end among ``size`` bytes."""
    end = size
    while end > 0:
        start = max(0, end - 65536)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file that may come from anywhere; empty where there is none, or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
