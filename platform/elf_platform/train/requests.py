"""Planned saves and stops: the driver asks through a file in the run folder, the main worker looks for it between steps.

A file, because whoever asks (the driver on a signal, Ray's controller before a resize) and whoever answers are different processes on
different machines that share the storage, and because a look costs a system call or two. Each request is a file of its own, so that those
who ask at the same time need no lock and none is lost to another; its answer is a file beside it.

    control/00001764274417123456789-1f2e3d4c.json          launch, action, reason
    control/00001764274417123456789-1f2e3d4c.answer.json   the step whose checkpoint was committed for it, or why none was
"""

import contextlib
import json
import secrets
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from elf.files import write_text

FOLDER = "control"
_ANSWER = ".answer.json"
Action = Literal["save", "resize", "stop"]
ACTIONS: tuple[Action, ...] = ("save", "resize", "stop")
"""From the weakest to the strongest: one save answers all requests that are open, and the strongest says what follows."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Something the workers of one launch are asked to do after the step they are in."""

    launch: str
    name: str  # of its file, without the ending
    action: Action  # save: and go on; resize: save, and wait a little for the end of the group; stop: save and end
    reason: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a request: the step whose checkpoint is committed, or why there is none."""

    step: int | None = None
    problem: str = ""


def ask(run_folder: Path, launch: str, action: Action, reason: str) -> Request:
    """Leave a request."""
    folder = run_folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    request = Request(launch=launch, name=f"{time.time_ns():023d}-{secrets.token_hex(4)}", action=action, reason=reason)
    write_text(folder / f"{request.name}.json", json.dumps({"launch": launch, "action": action, "reason": reason}))
    return request


def answer_to(run_folder: Path, request: Request) -> Answer | None:
    """None as long as there is none."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Answer(**json.loads((run_folder / FOLDER / f"{request.name}{_ANSWER}").read_text(encoding="utf-8")))
    return None


def withdraw(run_folder: Path, request: Request) -> None:
    """Whoever asked wants it no more: workers that wait for what was to follow go on."""
    with contextlib.suppress(OSError):
        (run_folder / FOLDER / f"{request.name}.json").unlink(missing_ok=True)


def stop_asked(run_folder: Path, launch: str) -> bool:
    """Whether the launch is to end."""
    return any(request.action == "stop" for request in Inbox(run_folder, launch).poll())


def clear_requests(run_folder: Path) -> None:
    """Remove what earlier launches left. The driver calls this, which holds the run folder."""
    shutil.rmtree(run_folder / FOLDER, ignore_errors=True)
    for name in ("control.json", "control.done.json"):  # of versions that kept one request
        (run_folder / name).unlink(missing_ok=True)


class Inbox:
    """The main worker's view of the requests."""

    def __init__(self, run_folder: Path, launch: str) -> None:
        self.folder, self.launch = run_folder / FOLDER, launch
        self._seen: set[str] = set()
        self._open: list[Request] = []

    def poll(self) -> list[Request]:
        """Requests that came since the last look, in the order of their names. An answered one is none, but a stop holds for every later
        group of the launch."""
        try:
            names = {path.name.removesuffix(".json") for path in self.folder.iterdir() if path.name[0] != "." and path.suffix == ".json"}
        except OSError:  # no one asked yet; or a storage that fails for a moment, which is no reason to end
            return []
        asked = {name for name in names if not f"{name}.json".endswith(_ANSWER)}
        new = []
        for name in sorted(asked - self._seen):
            try:
                request = self._read(name)
            except OSError:  # the next look tries again
                continue
            self._seen.add(name)
            if request and (request.action == "stop" or f"{name}.answer" not in names):
                new.append(request)
        self._open += new
        return new

    def answer(self, answer: Answer) -> None:
        """Tell all who asked. Raises OSError when the disk does not take it."""
        asked, self._open = self._open, []
        for request in asked:
            write_text(self.folder / f"{request.name}{_ANSWER}", json.dumps(asdict(answer)))

    def stands(self, request: Request) -> bool:
        """Whether it was not withdrawn."""
        return (self.folder / f"{request.name}.json").is_file()

    def _read(self, name: str) -> Request | None:
        """One of this launch; None for others. Raises OSError when the storage does not give it."""
        text = (self.folder / f"{name}.json").read_text(encoding="utf-8", errors="replace")
        with contextlib.suppress(ValueError, TypeError):
            request = Request(name=name, **json.loads(text))
            if request.launch == self.launch and request.action in ACTIONS:
                return request
        return None
