"""What jobs/track.py does: send the figures of runs, and tell where a run's figures are."""

import time
from pathlib import Path

from elf_platform.config_io import default_storage
from elf_platform.terminal import harmless
from elf_platform.tracking.base import load_handle
from elf_platform.tracking.journal import read_events, waiting
from elf_platform.tracking.listing import list_runs
from elf_platform.tracking.runs import flush, flush_command, trusted, ui_command


def list_storage(storage: str | None) -> str:
    """The runs of ``storage``, of $ELF_HOME where it is None."""
    return list_runs(Path(storage).expanduser().absolute() if storage else default_storage())


def flush_run(run_folder: Path, uri: str = "") -> tuple[bool, str]:
    """Sends what waits in the run folder: (whether nothing waits any more, one line that says so).

    uri: the store, where the user has not named it otherwise. ValueError without an MLflow run, or with one of another store."""
    handle = load_handle(run_folder)
    if handle is None or handle.kind != "mlflow":
        raise ValueError(f"{run_folder} holds no tracking.json: its run was not tracked with MLflow, and nothing of it is to be sent")
    handle = trusted(handle, run_folder, uri)
    if flush(handle, run_folder):
        return True, f"{run_folder.name}: everything is in {handle.uri}"
    return False, f"{run_folder.name}: {_amount(run_folder)} still here"


def describe(run_folder: Path) -> str:
    """Where the run's figures are, what waits to be sent, how it ended, and what happened to it. Asks no server."""
    handle = load_handle(run_folder)
    events = read_events(run_folder)
    attempts = sum(event.kind == "attempt" for event in events)
    rows = [("folder", str(run_folder))]
    if handle is None or handle.kind != "mlflow":
        rows.append(("tracked", "in the run folder only"))
    else:
        where = f"run {handle.run_id}" if handle.run_id else "not made there yet"
        rows.append(("tracked", f"{handle.uri}, experiment {handle.experiment}, {where}"))
        rows.append(("open", ui_command(handle)))
        state = handle.end or "training, or its driver was killed: the same command goes on"
        unknown_there = handle.end and not handle.end_sent
        rows.append(("state", f"{state}, not sent yet" if unknown_there else state))
        amount = _amount(run_folder)
        rows.append(("waits", f"{amount}; {flush_command(handle, run_folder)}" if amount or unknown_there or handle.pending else "nothing"))
    rows.append(("attempts", str(attempts) if attempts else "none noted"))
    lines = [f"run {run_folder.name}", *(f"  {name:<9} {value}" for name, value in rows)]
    for event in events:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time))
        lines.append(f"  {clock}  step {event.step:<7} {event.kind:<11} {' '.join(event.text.split())}")
    return harmless("\n".join(lines))


def _amount(run_folder: Path) -> str:
    return ", ".join(f"{count:,} {name if count > 1 else name[:-1]}" for name, count in waiting(run_folder).items())
