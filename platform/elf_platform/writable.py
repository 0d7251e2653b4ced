"""Whether a place can be written, asked before the work whose outcome goes there."""

import os
from pathlib import Path


def check_place(folder: Path, setting: str) -> None:
    """Raises OSError or ValueError when ``folder`` cannot be made: its name is too long, a file is in the way, or it may not be written."""
    try:
        os.lstat(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ValueError(f"{setting} cannot hold {folder}: {error.strerror}; give another place") from error
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        what = "is no folder" if not existing.is_dir() else "may not be written"
        raise ValueError(f"{setting} cannot hold {folder}: {existing} {what}; give another place, or mend its permissions")
