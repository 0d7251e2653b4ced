"""Which code ran."""

import functools
import subprocess
from pathlib import Path

import elf


@functools.cache
def code_version() -> str:
    """The package version and, in a git checkout, the commit: "0.1.0+g1a2b3c4d5e6f", with ".changed" for uncommitted changes."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return elf.__version__

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        changed = git("--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return elf.__version__
    return f"{elf.__version__}+g{commit}{'.changed' if changed else ''}"
