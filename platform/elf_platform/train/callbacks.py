"""What Ray Train's controller does for a run besides placing workers: it has them save before a node goes, and gives up at once on errors
that no restart can mend. Nothing here waits: the controller is one event loop, which also watches the workers.

Ray lets callbacks of its internal kinds into a run on purpose, without promising that they stay: where a version of Ray lacks them,
``controller_callbacks`` is empty, and a drained node costs the steps since the last checkpoint.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

from elf_platform.cli import root_cause
from elf_platform.tracking import book_event
from elf_platform.tracking.journal import METRICS_FILE
from elf_platform.train.requests import ask, stop_asked

try:
    from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
except ImportError:
    _Base: tuple[type, ...] = ()
else:
    _Base = (WorkerGroupCallback, ControllerCallback)


def controller_callbacks(run_folder: Path, launch: str) -> list[Any]:
    """Callbacks for ``ray.train.RunConfig``."""
    return [_Planned(run_folder, launch)] if _Base else []


class _Planned(*_Base):  # type: ignore[misc]  # the bases are a tuple that may be empty
    """Runs in the controller's process. The names of the methods are Ray's."""

    def __init__(self, run_folder: Path, launch: str) -> None:
        self.run_folder, self.launch = run_folder, launch
        self._drained, self._failed = False, False
        self._error: BaseException | None = None

    def after_worker_group_start(self, worker_group: Any) -> None:
        """A new group: earlier notices were for the one before."""
        self._drained, self._failed, self._error = False, False, None

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """A node of the group is to be taken away: the group saves now, and goes on until it is gone."""
        information = getattr(worker_group_status, "get_preemption_info", lambda: None)()
        if information is not None and not self._drained:
            self._drained = True
            book_event(self.run_folder, last_step(self.run_folder), "warning", "a node of the group is about to be taken away; saving now")
            with contextlib.suppress(OSError):
                ask(self.run_folder, self.launch, "save", "a node of the group is about to be taken away")
        causes = {rank: root_cause(error) for rank, error in getattr(worker_group_status, "errors", {}).items()}
        if causes and not self._failed:
            self._failed = True
            words = "; ".join(f"worker {rank}: {_in_a_line(cause)}" for rank, cause in sorted(causes.items()))
            book_event(self.run_folder, last_step(self.run_folder), "failure", words)
        if causes and stop_asked(self.run_folder, self.launch):
            self._error = self._error or causes[min(causes)]
        self._error = next((cause for cause in causes.values() if isinstance(cause, ValueError)), self._error)

    def before_controller_execute_failure_decision(self, failure_decision: Any) -> None:
        """Raises a worker's ValueError, since wrong settings or data stay wrong at the next attempt; and any error of a launch that is
        to end."""
        if self._error is not None:
            raise self._error


def last_step(run_folder: Path) -> int:
    """The newest step that has figures."""
    path = run_folder / METRICS_FILE
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 65536))
        return int(json.loads(file.read().rsplit(b"\n", 2)[-2])["step"])
    return 0


def _in_a_line(error: BaseException) -> str:
    """The heart of an error; Ray's own sentences go on about everything that might be the cause."""
    if any(base.__module__.startswith("ray.exceptions") for base in type(error).__mro__):
        return "its process died" if "Died" in type(error).__name__ else type(error).__name__
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{type(error).__name__}: {text if len(text) <= 160 else text[:159] + '…'}"
