"""The trackers behind the protocol: journal with a sender (MLflow), journal alone (jsonl), nothing (null)."""

import math
import re
import time
from collections.abc import Mapping
from pathlib import Path

from elf.files import write_text
from elf_platform.tracking.base import RunHandle, Tracker
from elf_platform.tracking.delivery import Sender
from elf_platform.tracking.journal import METRICS_FILE, UPLOADS_FILE, Journal


class NullTracker:
    """Keeps nothing."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
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
        self._metrics = Journal(run_folder / METRICS_FILE)
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
            self._metrics.append({"step": int(step), "time": round(time.time(), 3), "metrics": values})
            if self._sender is not None:
                self._sender.wake()

    def text(self, name: str, text: str, step: int) -> None:
        stem = re.sub(r"[^\w/-]+", "_", name).strip("/")
        text = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate has no place in a file
        path = self._run_folder / "texts" / f"{stem}-{step:08d}.txt"
        count = 1
        while path.exists() and path.read_text("utf-8") != text:  # several texts of one name and step, such as warnings
            count += 1
            path = path.with_name(f"{Path(stem).name}-{step:08d}-{count}.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        self.artifact(path, str(path.parent.relative_to(self._run_folder)))

    def artifact(self, path: Path, folder: str = "") -> None:
        if self._sender is not None:
            book_upload(self._run_folder, path, folder)
            self._sender.wake()

    def close(self) -> None:
        self._metrics.close()
        if self._sender is not None:
            self._sender.close()


def book_upload(run_folder: Path, path: Path, folder: str) -> None:
    """Notes a file or folder for upload; paths in the run folder are kept relative, so that it may be moved."""
    path = path.absolute()
    inside = path.is_relative_to(run_folder.absolute())
    journal = Journal(run_folder / UPLOADS_FILE)
    journal.append({"path": str(path.relative_to(run_folder.absolute()) if inside else path), "folder": folder})
    journal.close()


def start_tracker(handle: RunHandle, run_folder: Path) -> Tracker:
    """The tracker for rank 0 of a worker; call it again after a restart, with the same handle."""
    if handle.kind == "null":
        return NullTracker()
    return JournalTracker(run_folder, Sender(handle, run_folder) if handle.kind == "mlflow" else None)
