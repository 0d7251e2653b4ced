"""Planned saves and stops: the driver asks through a file in the run folder, the main worker looks at it between steps.

A file, because whoever asks (the driver on a signal, Ray's controller before a resize) and whoever answers are different processes on
different machines that share the storage, and because a look costs one system call.
"""

import contextlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from elf.files import write_text

ASKED, DONE = "control.json", "control.done.json"
Action = Literal["save", "stop"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """Something the workers of one launch are asked to do after the step they are in."""

    launch: str
    number: float  # rises with every request
    action: Action  # stop: save and end; save: save and go on
    reason: str


def ask(run_folder: Path, launch: str, action: Action, reason: str) -> Request:
    """Leave a request; it replaces one that was not looked at yet, but a stop stays a stop."""
    known = Inbox(run_folder, launch)
    waiting = known.read()
    if waiting is not None and waiting.action == "stop" and action == "save":
        return waiting
    # Clocks of different machines differ: the number rises whatever they say.
    number = max(time.time(), known.answered + 1e-3, waiting.number + 1e-3 if waiting else 0.0)
    request = Request(launch=launch, number=number, action=action, reason=reason)
    write_text(run_folder / ASKED, json.dumps(asdict(request)))
    return request


def wait_done(run_folder: Path, request: Request, seconds: float) -> int | None:
    """The step whose checkpoint was committed for the request, None when that did not happen within ``seconds``."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError, ValueError, KeyError):  # not there yet
            done = json.loads((run_folder / DONE).read_text())
            if done["launch"] == request.launch and done["number"] >= request.number:
                return int(done["step"])
        time.sleep(0.05)
    return None


class Inbox:
    """The main worker's view of the requests."""

    def __init__(self, run_folder: Path, launch: str) -> None:
        self.run_folder, self.launch = run_folder, launch
        self.answered = self._number()
        """Number of the last request that was answered or taken."""

    def poll(self) -> Request | None:
        """A request that came since the last one that was taken; a stop holds for every later group of the launch too."""
        request = self.read()
        if request is None or (request.number <= self.answered and request.action != "stop"):
            return None
        self.answered = request.number
        return request

    def done(self, request: Request, step: int) -> None:
        """Tell whoever asked that the checkpoint of ``step`` is committed."""
        write_text(self.run_folder / DONE, json.dumps({"launch": request.launch, "number": request.number, "step": step}))

    def _number(self) -> float:
        """Of the last request that was answered: one from before a restart of the group may still be open."""
        try:
            done = json.loads((self.run_folder / DONE).read_text())
            return float(done["number"]) if done["launch"] == self.launch else 0.0
        except (OSError, ValueError, KeyError):
            return 0.0

    def read(self) -> Request | None:
        """The request of this launch that lies there, answered or not."""
        path = self.run_folder / ASKED
        if not path.exists():
            return None
        try:
            request = Request(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return request if request.launch == self.launch else None
