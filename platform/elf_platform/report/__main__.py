"""Writes the report of a run anew, or of one that is still training: ``python -m elf_platform.report RUN_FOLDER``."""

import sys
from pathlib import Path

from elf_platform.report.page import write_report


def main() -> int:
    """Exit status 2 for a wrong call."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m elf_platform.report RUN_FOLDER\n")
        return 2
    try:
        sys.stdout.write(f"{write_report(Path(sys.argv[1]))}\n")
    except FileNotFoundError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
