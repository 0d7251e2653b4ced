"""Where figures of a run go: the run folder always, one MLflow run across all attempts besides, at its own pace.

Driver: ``handle = open_run(...)`` before training, ``finish(handle, ...)`` after it.
Rank 0: ``tracker = start_tracker(handle, run_folder)``. Drivers and controllers: ``book_event(run_folder, step, kind, text)``.
"""

from elf_platform.tracking.base import Event, RunHandle, Status, Tracker, load_handle, newest
from elf_platform.tracking.journal import read_events, read_metrics
from elf_platform.tracking.runs import finish, flush, open_run, store_uri, trusted, ui_command
from elf_platform.tracking.trackers import book_event, start_tracker

__all__ = [
    "Event",
    "RunHandle",
    "Status",
    "Tracker",
    "book_event",
    "finish",
    "flush",
    "load_handle",
    "newest",
    "open_run",
    "read_events",
    "read_metrics",
    "start_tracker",
    "store_uri",
    "trusted",
    "ui_command",
]
