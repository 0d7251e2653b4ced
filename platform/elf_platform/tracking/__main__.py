"""Sends figures that wait in run folders since their MLflow store did not answer: ``python -m elf_platform.tracking RUN ...``."""

import sys
from pathlib import Path

from elf_platform.tracking import flush, load_handle


def main() -> int:
    """Exit status 0 when nothing waits any more, 1 when a store still does not answer, 2 for a folder without an MLflow run."""
    status = 0 if sys.argv[1:] else 2
    if status:
        sys.stderr.write("usage: python -m elf_platform.tracking RUN_FOLDER ...\n")
    for folder in map(Path, sys.argv[1:]):
        handle = load_handle(folder)
        if handle is None:
            sys.stderr.write(f"{folder} holds no tracking.json: it is no folder of a run that was tracked with MLflow\n")
            status = 2
        elif flush(handle, folder):
            sys.stdout.write(f"{folder}: all figures are in {handle.uri}\n")
        else:
            status = max(status, 1)
    return status


if __name__ == "__main__":
    sys.exit(main())
