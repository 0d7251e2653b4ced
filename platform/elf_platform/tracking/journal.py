"""The journal: JSON lines in the run folder, written before anything is sent, and the place up to which they were sent."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from elf.files import append_lines, write_text
from elf_platform.tracking.base import Event

METRICS_FILE = "metrics.jsonl"
UPLOADS_FILE = "uploads.jsonl"
EVENTS_FILE = "events.jsonl"
CURSOR_FILE = "tracking.cursor"
_LARGEST = 2**53
"""Whole numbers above it are no steps, and no float holds all of them."""


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Adds a JSON line, whole or not at all (``elf.files.append_lines``), handed to the operating system at once: it outlives the process.
    Several processes may write one file. OSError on a full disk."""
    append_lines(path, [json.dumps(line, allow_nan=False)])


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
        if _has_metrics(line):
            by_step.setdefault(line["step"], {}).update({name: value for name, value in line["metrics"].items() if finite(value)})
    return sorted(by_step.items())


def finite(value: object) -> bool:
    """Whether it is a number such as ours are, which any page can show."""
    return isinstance(value, int | float) and abs(value) < 1e300


def _has_metrics(line: Mapping[str, Any]) -> bool:
    step, metrics = line.get("step"), line.get("metrics")
    return isinstance(step, int) and abs(step) < _LARGEST and isinstance(metrics, dict)


def event_of(line: Mapping[str, Any]) -> Event | None:
    """The event in a line of events.jsonl; None for a line that is none."""
    step, time, kind, text = (line.get(name) for name in ("step", "time", "kind", "text"))
    if not (isinstance(step, int) and abs(step) < _LARGEST and isinstance(time, int | float) and finite(time)):
        return None
    if not (isinstance(kind, str) and isinstance(text, str)):
        return None
    return Event(step=step, time=float(time), kind=kind, text=text)


def read_events(run_folder: Path) -> list[Event]:
    """What happened to a run, in the order in which it was booked; empty without a file."""
    return [event for _, line in read_lines(run_folder / EVENTS_FILE) if (event := event_of(line))]


@dataclass(frozen=True)
class Cursor:
    """Bytes of the three journals that the store has taken."""

    metrics: int = 0
    uploads: int = 0
    events: int = 0

    @staticmethod
    def read(run_folder: Path) -> "Cursor":
        """The kept cursor. What it lacks, or what does not fit its journal, begins at the start: the store drops what it already
        has, so an early cursor costs time only."""
        try:
            kept = json.loads((run_folder / CURSOR_FILE).read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            kept = {}
        places = {}
        for name, file in (("metrics", METRICS_FILE), ("uploads", UPLOADS_FILE), ("events", EVENTS_FILE)):
            place, path = kept.get(name) if isinstance(kept, dict) else None, run_folder / file
            if isinstance(place, int) and 0 <= place <= (path.stat().st_size if path.exists() else 0):
                places[name] = place
        return Cursor(**places)

    def save(self, run_folder: Path) -> None:
        write_text(run_folder / CURSOR_FILE, json.dumps(asdict(self)))


def waiting(run_folder: Path) -> dict[str, int]:
    """What the store has not taken yet: number of points, events and files, those that are there. Points that were logged again
    count again."""
    cursor = Cursor.read(run_folder)
    points = sum(len(line["metrics"]) for _, line in read_lines(run_folder / METRICS_FILE, cursor.metrics) if _has_metrics(line))
    events = sum(1 for _, line in read_lines(run_folder / EVENTS_FILE, cursor.events) if event_of(line))
    files = sum(1 for _, line in read_lines(run_folder / UPLOADS_FILE, cursor.uploads) if line.get("path"))
    return {name: count for name, count in (("points", points), ("events", events), ("files", files)) if count}
