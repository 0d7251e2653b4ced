"""Files that are there whole or not at all, and their digests."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".writing-"
"""How the names of uncommitted files begin; what a killed process leaves can be found and removed by it."""


@contextmanager
def committing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``; when the block ends well the file is synced to disk and takes its name, else it goes.

    A reader therefore sees the old file, the new file or none, never half of one, even after a loss of power.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(6)}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small UTF-8 file through ``committing``."""
    with committing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
