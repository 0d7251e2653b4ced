"""What tracking is to the rest: a handle that the driver makes and rank 0 uses, and the calls of a tracker."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from elf.files import write_text

Status = Literal["FINISHED", "FAILED", "KILLED"]
Kind = Literal["mlflow", "jsonl", "null"]
HANDLE_FILE = "tracking.json"


@dataclass(frozen=True, kw_only=True)
class RunHandle:
    """One tracked run, as plain values: pickled to the worker, and kept in ``run_folder/tracking.json`` for the next attempt."""

    kind: Kind
    uri: str = ""
    """MLflow store: a server or an absolute sqlite address."""
    experiment: str = ""
    experiment_id: str = ""
    run_id: str = ""
    """Empty as long as the store has not answered."""
    run_name: str = ""
    artifact_root: str = ""
    """file:// address for artefacts of a local store; empty where the server decides."""
    key: str = ""
    """Tag that finds a run whose creation was accepted but never answered."""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    end: str = ""
    """State that the run ended with; empty as long as it trains, and after a driver that was killed."""
    end_time: float = 0.0
    """Unix seconds at which the run ended."""
    end_sent: bool = False
    """The store has the end state."""
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Environment variables that open the store, for workers on other machines. Never written."""
    reopen: bool = False
    """The store may still have the end state of an earlier attempt. Set by the driver alone: a sender that is late, or figures that
    are sent after the end, must not open a finished run."""

    @property
    def pending(self) -> bool:
        """True when the run does not exist in the store yet: its figures wait in the run folder."""
        return self.kind == "mlflow" and not self.run_id

    def save(self, run_folder: Path) -> None:
        run_folder.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in asdict(self).items() if name != "credentials"}
        write_text(run_folder / HANDLE_FILE, json.dumps(kept, indent=1))


def load_handle(run_folder: Path) -> RunHandle | None:
    """The handle kept in a run folder; None without one or with one that cannot be read (the run is then found by nobody)."""
    try:
        kept = json.loads((run_folder / HANDLE_FILE).read_text("utf-8"))
        handle = RunHandle(**kept | {"credentials": {}})
    except (OSError, ValueError, TypeError):
        return None
    usual = asdict(RunHandle(kind="null"))
    return handle if all(type(value) is type(usual[name]) for name, value in asdict(handle).items()) else None


def newest(handle: RunHandle, run_folder: Path) -> RunHandle:
    """What the run folder knows of the run by now. Places and secrets are the caller's, who has them from the user: anybody may have
    written what the folder says of them."""
    kept = load_handle(run_folder)
    if kept is None:
        return handle
    return replace(kept, uri=handle.uri, artifact_root=handle.artifact_root, credentials=handle.credentials)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a run: an attempt that began, a resize, a skipped window, a planned stop, ..."""

    step: int
    time: float
    """Unix seconds."""
    kind: str
    text: str


class Tracker(Protocol):
    """What rank 0 calls while it trains. None of these waits for a network, and none raises because of one or of a full disk."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Values at an optimiser step. A value that is not finite is booked as ``<name>.nonfinite`` = 1 instead."""

    def event(self, step: int, kind: str, text: str) -> None:
        """One line of events.jsonl; with MLflow a tag ``<kind>.<line number>`` besides. May be called from any thread."""

    def text(self, name: str, text: str, step: int) -> None:
        """A text, such as a sample, that belongs to a step."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file or folder to upload, under ``folder`` among the run's artefacts; it must stay in place until the run ends."""

    def close(self) -> None:
        """Sends what is left, for a few seconds at most; what cannot be sent stays in the run folder."""
