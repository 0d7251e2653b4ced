"""The journal: JSON lines in the run folder, written before anything is sent, and the place up to which they were sent."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from elf.files import write_text

METRICS_FILE = "metrics.jsonl"
UPLOADS_FILE = "uploads.jsonl"
CURSOR_FILE = "tracking.cursor"


class Journal:
    """Append-only JSON lines. Opening it cuts off a last line that a killed writer left unfinished."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        repair(path)
        self._file = path.open("ab")

    def append(self, line: Mapping[str, Any]) -> None:
        """One line in one write, handed to the operating system at once: it outlives the process. OSError on a full disk."""
        self._file.write(json.dumps(line, allow_nan=False).encode("ascii") + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def repair(path: Path) -> None:
    """Cuts the file after its last complete line; does nothing to a file that ends in one."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
    os.truncate(path, path.read_bytes().rfind(b"\n") + 1)


def read_lines(path: Path, offset: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """(offset after the line, line) for each complete line from ``offset`` on; lines that are no JSON object count as empty."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        file.seek(offset)
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            offset += len(raw)
            try:
                line = json.loads(raw)
            except ValueError:
                line = {}
            yield offset, line if isinstance(line, dict) else {}


def read_metrics(path: Path) -> list[tuple[int, dict[str, float]]]:
    """(step, values) of a metrics.jsonl in the order of the steps.

    A step that was logged again, after a restart from an earlier checkpoint, has the values logged last. A missing file is an
    empty run, and a torn last line is left out.
    """
    by_step: dict[int, dict[str, float]] = {}
    for _, line in read_lines(path):
        if isinstance(line.get("step"), int) and isinstance(line.get("metrics"), dict):
            by_step.setdefault(line["step"], {}).update(line["metrics"])
    return sorted(by_step.items())


@dataclass(frozen=True)
class Cursor:
    """Bytes of the two journals that the store has taken."""

    metrics: int = 0
    uploads: int = 0

    @staticmethod
    def read(run_folder: Path) -> "Cursor":
        """The kept cursor, or the start: the store drops what it already has, so an early cursor costs time only."""
        try:
            cursor = Cursor(**json.loads((run_folder / CURSOR_FILE).read_text("utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return Cursor()
        sizes = [path.stat().st_size if path.exists() else 0 for path in (run_folder / METRICS_FILE, run_folder / UPLOADS_FILE)]
        return Cursor(
            cursor.metrics if 0 <= cursor.metrics <= sizes[0] else 0, cursor.uploads if 0 <= cursor.uploads <= sizes[1] else 0
        )

    def save(self, run_folder: Path) -> None:
        write_text(run_folder / CURSOR_FILE, json.dumps(asdict(self)))
