"""From the journal to a store: in batches, in the background, each point once, and never in the way of training.

The journal file is the queue, so a server that is down for a day costs no memory, and what a killed worker had not sent the
driver sends later with the same code.
"""

import math
import posixpath
import random
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from elf.files import inside
from elf_platform.redact import redact
from elf_platform.tracking.base import RunHandle, load_handle, newest
from elf_platform.tracking.journal import EVENTS_FILE, METRICS_FILE, UPLOADS_FILE, Cursor, event_of, read_lines

BATCH = 1000  # metrics in one request, the limit of MLflow
NAME_LIMIT = 250
GATHER_SECONDS = 1.0
BACKOFF_SECONDS = (1.0, 60.0)  # first and longest pause after a failure
CLOSE_SECONDS = 15.0


@dataclass(frozen=True)
class Point:
    """One value of one metric. ``time`` in unix seconds."""

    name: str
    value: float
    time: float
    step: int


class Store(Protocol):
    """Where points go. Every method raises when the store cannot be reached."""

    def connect(self, handle: RunHandle) -> RunHandle:
        """Makes sure that the run exists, and is open where ``handle.reopen`` asks for it; the handle with its ids. Another run_id
        than before means a new run."""

    def latest_steps(self) -> dict[str, int]:
        """Last step that the store has of each metric."""

    def steps_from(self, name: str, first: int) -> set[int]:
        """Steps that the store has of one metric, from ``first`` on."""

    def send(self, points: list[Point]) -> None:
        """At most ``BATCH`` points, all or none."""

    def tag(self, tags: Mapping[str, str]) -> None:
        """Any number of tags of the run; long values are cut."""

    def upload(self, path: Path, folder: str) -> None:
        """A file, or a folder with all it holds, into ``folder``."""

    def end(self, status: str, time: float) -> None:
        """Sets the end state, with unix seconds."""


class ExperimentDeleted(ValueError):
    """The store keeps the name of a deleted experiment, so that no run can be made under it."""


def clean_name(name: str) -> str:
    """A name that MLflow takes: letters, digits, underscore, dash, dot, blank and slash, at most 250 of them, and a path that goes
    down only."""
    name = re.sub(r"[^\w\-. /]", "_", name)[:NAME_LIMIT]
    return re.sub(r"^\.\.|^\.$|^$", "_", posixpath.normpath(name).strip("/"))


def say(message: str) -> None:
    """One line for the user; standard error, so that it never mixes with a job's output."""
    sys.stderr.write(f"tracking: {redact(message)}\n")
    sys.stderr.flush()


def reason(error: BaseException) -> str:
    """The heart of an error, short enough for one line of warning."""
    if system := re.search(r"\[Errno [^'\")]+", str(error)):  # MLflow wraps it in the names of three layers
        return system[0]
    lines = str(error).strip().splitlines()
    first = lines[0] if lines else type(error).__name__
    return first if len(first) <= 160 else first[:159] + "…"


class Delivery:
    """Sends what the journals of a run folder hold and the store lacks."""

    def __init__(self, store: Store, handle: RunHandle, run_folder: Path) -> None:
        self.store = store
        self.handle = handle
        self.run_folder = run_folder
        self._latest: dict[str, int] | None = None
        self._asked: dict[str, tuple[float, set[int]]] = {}  # metric to (first step that was asked for, steps that the store has)

    def connect(self) -> None:
        """Makes the run if need be and asks how far it is.

        A request that failed may still have been taken by the store, and a killed worker may have sent more than its cursor says.
        Asking after every failure keeps points from arriving twice.
        """
        self._note()
        handle = self.store.connect(self.handle)
        if handle.run_id != self.handle.run_id:
            Cursor().save(self.run_folder)
        self._note(experiment_id=handle.experiment_id, run_id=handle.run_id, reopen=False)
        self._latest, self._asked = self.store.latest_steps(), {}

    def _note(self, **changes: Any) -> None:
        """Changes the handle as the run folder has it by now: the driver may have ended the run meanwhile."""
        kept = load_handle(self.run_folder)
        current = newest(self.handle, self.run_folder) if kept is not None and kept.key == self.handle.key else self.handle
        self.handle = replace(current, **changes)
        if self.handle != kept:
            self.handle.save(self.run_folder)

    def push(self) -> None:
        """Events, points, then the end state if there is one, then uploads; raises at the first failure, with all before it
        recorded."""
        try:
            if self._latest is None:
                self.connect()
            assert self._latest is not None
            self._push_events()
            self._push_points(self._latest)
            if self.handle.end and not self.handle.end_sent:
                self.store.end(self.handle.end, self.handle.end_time)
                self._note(end_sent=True)
            self._push_uploads()
        except Exception:
            self._latest = None
            raise

    def _push_events(self) -> None:
        """Each as a tag with the number of its line, so that sending it again changes nothing, and the number of attempts."""
        path, cursor = self.run_folder / EVENTS_FILE, Cursor.read(self.run_folder)
        if not path.exists() or path.stat().st_size == cursor.events:
            return
        tags: dict[str, str] = {}
        attempts, end = 0, cursor.events
        for number, (offset, line) in enumerate(read_lines(path), 1):
            event = event_of(line)
            if event is not None and event.kind == "attempt":
                attempts += 1
                tags["attempts"] = str(attempts)
            if event is not None and offset > cursor.events:
                tags[clean_name(f"{event.kind}.{number:04d}")] = f"step {event.step}: {event.text}"
            end = max(end, offset)
        self.store.tag(tags)
        replace(cursor, events=end).save(self.run_folder)

    def _push_points(self, latest: dict[str, int]) -> None:
        cursor = Cursor.read(self.run_folder)
        for offset, points in _batches(self.run_folder / METRICS_FILE, cursor.metrics):
            fresh = self._fresh(points, latest)
            for start in range(0, len(fresh), BATCH):
                self.store.send(fresh[start : start + BATCH])
            cursor = replace(cursor, metrics=offset)
            cursor.save(self.run_folder)

    def _fresh(self, points: list[Point], latest: dict[str, int]) -> list[Point]:
        """Those that the store does not have, the first of each metric and step.

        A restart from an earlier checkpoint logs steps again, and may log others between them (another interval, a validation that
        was due earlier). A step beyond the last one is new; of the others only the store knows, which costs a request per metric.
        """
        chosen: dict[tuple[str, int], Point] = {}
        for point in points:
            if (point.name, point.step) in chosen:
                continue
            if point.step > latest.get(point.name, -1):
                latest[point.name] = point.step
            else:
                first, steps = self._asked.get(point.name, (math.inf, set()))
                if point.step < first:
                    steps = self.store.steps_from(point.name, point.step) | {step for name, step in chosen if name == point.name}
                    self._asked[point.name] = (point.step, steps)
                if point.step in steps:
                    continue
            chosen[point.name, point.step] = point
            if point.name in self._asked:
                self._asked[point.name][1].add(point.step)
        return list(chosen.values())

    def _push_uploads(self) -> None:
        cursor = Cursor.read(self.run_folder)
        for offset, line in read_lines(self.run_folder / UPLOADS_FILE, cursor.uploads):
            if line.get("path"):
                self._upload(str(line["path"]), str(line.get("folder", "")))
            cursor = replace(cursor, uploads=offset)
            cursor.save(self.run_folder)


    def _upload(self, name: str, folder: str) -> None:
        """Sends a file, or a folder with all it holds, of the run folder. Nothing that leads out of it is sent, nor by a link: the folder
        may come from anywhere."""
        try:
            path = inside(self.run_folder, name)
            for held in path.rglob("*") if path.is_dir() else ():
                inside(self.run_folder, str(held.relative_to(self.run_folder)))
            if folder:
                inside(self.run_folder, folder)
        except ValueError as error:
            say(f"not sent: {error}")
            return
        if path.exists():
            self.store.upload(path, folder)


def _batches(path: Path, offset: int) -> Iterator[tuple[int, list[Point]]]:
    """(offset after the batch, points) of whole journal lines, ``BATCH`` points at most unless a single line holds more."""
    points: list[Point] = []
    end = offset
    for after, line in read_lines(path, offset):
        found = _points_of(line)
        if points and len(points) + len(found) > BATCH:
            yield end, points
            points = []
        points += found
        end = after
    if end > offset:
        yield end, points


def _points_of(line: dict[str, object]) -> list[Point]:
    step, time, metrics = line.get("step"), line.get("time"), line.get("metrics")
    if not (isinstance(step, int) and isinstance(time, int | float) and isinstance(metrics, dict)):
        return []
    return [
        Point(clean_name(name), float(value), float(time), step)
        for name, value in metrics.items()
        if isinstance(value, int | float) and math.isfinite(value)
    ]


class Sender:
    """A thread that delivers while training goes on. It starts with the first point, when the imports of training are done."""

    def __init__(self, handle: RunHandle, run_folder: Path) -> None:
        self._handle = handle
        self._run_folder = run_folder
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Something was added to a journal. May be called from any thread."""
        self._wake.set()
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
                self._thread.start()

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """A last attempt, for ``timeout`` seconds at most."""
        if self._thread is not None:
            self._stop.set()
            self._wake.set()
            self._thread.join(timeout)

    def _run(self) -> None:
        delivery: Delivery | None = None
        failures = int(self._handle.pending)  # the driver has said it already
        while True:
            self._wake.wait()
            self._wake.clear()
            self._stop.wait(GATHER_SECONDS)
            last = self._stop.is_set()
            try:
                delivery = delivery or open_delivery(self._handle, self._run_folder)
                delivery.push()
                if failures:
                    say(f"{self._handle.uri} answers again; everything up to now was sent")
                failures = 0
            except Exception as error:  # whatever a store does, training goes on
                failures += 1
                if failures == 1:
                    say(f"{self._handle.uri} does not take figures ({reason(error)}); they wait in {self._run_folder}")
                if not last:
                    pause = min(BACKOFF_SECONDS[0] * 2 ** (failures - 1), BACKOFF_SECONDS[1])
                    self._stop.wait(pause * random.uniform(0.8, 1.2))
                    self._wake.set()
            if last:
                return


def open_delivery(handle: RunHandle, run_folder: Path) -> Delivery:
    """A delivery to the handle's store, under the newest handle that the run folder knows."""
    from elf_platform.tracking.mlflow_tracker import MlflowStore  # MLflow takes seconds to import: only where it is used

    return Delivery(MlflowStore(handle.uri), newest(handle, run_folder), run_folder)
