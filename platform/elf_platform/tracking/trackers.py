"""The trackers behind the protocol: journal with a sender (MLflow), journal alone (jsonl), nothing (null)."""

import math
import re
import shutil
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from elf.files import committing, write_text
from elf_platform.redact import redact, take_credentials
from elf_platform.tracking.base import RunHandle, Tracker
from elf_platform.tracking.delivery import Sender, say
from elf_platform.tracking.journal import EVENTS_FILE, METRICS_FILE, UPLOADS_FILE, append

UNWRITTEN = 10_000  # lines kept in memory while the disk is full


class NullTracker:
    """Keeps nothing."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        pass

    def event(self, step: int, kind: str, text: str) -> None:
        pass

    def text(self, name: str, text: str, step: int) -> None:
        pass

    def artifact(self, path: Path, folder: str = "") -> None:
        pass

    def close(self) -> None:
        pass


class JournalTracker:
    """Writes the run folder first; a sender, where there is one, reads it from there."""

    def __init__(self, run_folder: Path, sender: Sender | None = None) -> None:
        self._run_folder = run_folder
        self._unwritten: deque[dict[str, object]] = deque(maxlen=UNWRITTEN)
        self._sender = sender

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        values: dict[str, float] = {}
        for name, value in metrics.items():
            number = float(value)
            if math.isfinite(number):
                values[name] = number
            else:
                values[f"{name}.nonfinite"] = 1.0
        if values:
            self._write({"step": int(step), "time": round(time.time(), 3), "metrics": values})
            if self._sender is not None:
                self._sender.wake()

    def _write(self, line: dict[str, object]) -> None:
        """Lines that a full disk does not take wait in memory for the next call: training goes on."""
        waited = bool(self._unwritten)
        self._unwritten.append(line)
        if not self._write_waiting() and not waited:
            say(f"{self._run_folder} takes no figures, its disk may be full; they wait in memory")

    def _write_waiting(self) -> bool:
        try:
            while self._unwritten:
                append(self._run_folder / METRICS_FILE, self._unwritten[0])
                self._unwritten.popleft()
        except OSError:
            return False
        return True

    def event(self, step: int, kind: str, text: str) -> None:
        book_event(self._run_folder, step, kind, text)
        if self._sender is not None:
            self._sender.wake()

    def text(self, name: str, text: str, step: int) -> None:
        stem = re.sub(r"[^\w/-]+", "_", name).strip("/")
        text = _plain(text)
        try:
            path = self._keep_text(stem, text, step)
        except OSError as error:
            say(f"the text {name} of step {step} could not be written to {self._run_folder} ({error.strerror})")
            return
        self.artifact(path, str(path.parent.relative_to(self._run_folder)))

    def _keep_text(self, stem: str, text: str, step: int) -> Path:
        path = self._run_folder / "texts" / f"{stem}-{step:08d}.txt"
        count = 1
        while path.exists() and path.read_text("utf-8") != text:  # several texts of one name and step, such as warnings
            count += 1
            path = path.with_name(f"{Path(stem).name}-{step:08d}-{count}.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        return path

    def artifact(self, path: Path, folder: str = "") -> None:
        if self._sender is not None:
            try:
                book_upload(self._run_folder, path, folder)
            except OSError as error:
                say(f"{path} could not be noted for upload ({error.strerror})")
                return
            self._sender.wake()

    def close(self) -> None:
        if not self._write_waiting():
            say(f"{len(self._unwritten)} logged points could not be written to {self._run_folder} and are lost")
        if self._sender is not None:
            self._sender.close()


def book_event(run_folder: Path, step: int, kind: str, text: str, *, at: float | None = None) -> None:
    """Adds a line to the run's events.jsonl, for drivers and controllers that have no tracker; the next delivery sends it. Says so
    on standard error when the disk does not take it, and never raises for one. at: Unix seconds of something earlier than now."""
    line = {"step": int(step), "time": round(time.time() if at is None else at, 3), "kind": kind, "text": redact(_plain(text))}
    try:
        append(run_folder / EVENTS_FILE, line)
    except OSError as error:
        say(f"step {step}: {kind}: {line['text']} (could not be written to {run_folder}: {error.strerror})")


def _plain(text: str) -> str:
    """Without lone surrogates, which have no place in a file or a store."""
    return text.encode("utf-8", "replace").decode("utf-8")


def book_upload(run_folder: Path, path: Path, folder: str) -> None:
    """Notes a file or folder for upload, by its place in the run folder, which may be moved. A file from elsewhere is copied into it."""
    path, run_folder = path.absolute(), run_folder.absolute()
    if not path.is_relative_to(run_folder):
        copy = run_folder / "uploads" / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        with committing(copy) as temporary:
            shutil.copyfile(path, temporary)
        path = copy
    append(run_folder / UPLOADS_FILE, {"path": str(path.relative_to(run_folder)), "folder": folder})


def start_tracker(handle: RunHandle, run_folder: Path) -> Tracker:
    """The tracker for rank 0 of a worker; call it again after a restart, with the same handle."""
    if handle.kind == "null":
        return NullTracker()
    take_credentials(handle.credentials)
    return JournalTracker(run_folder, Sender(handle, run_folder) if handle.kind == "mlflow" else None)
