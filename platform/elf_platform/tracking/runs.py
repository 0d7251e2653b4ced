"""The driver's side of tracking: open the one run before training, send and end it afterwards. Never stops a run for a server."""

import math
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from elf.files import committing
from elf_platform.commands import job_command, module_command
from elf_platform.tracking.base import RunHandle, Status, load_handle
from elf_platform.tracking.delivery import ExperimentDeleted, open_delivery, reason, say
from elf_platform.tracking.journal import Cursor, waiting
from elf_platform.tracking.trackers import book_upload

if TYPE_CHECKING:  # at run time it would import the whole model, and sending waiting figures needs none of it
    from elf_platform.config import TrackingConfig

SERVERS = ("http", "https", "databricks")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def open_run(
    config: "TrackingConfig",
    *,
    storage: Path,
    run_folder: Path,
    run_name: str,
    params: Mapping[str, str],
    tags: Mapping[str, str] | None = None,
) -> RunHandle:
    """The run that all attempts share: made on the first call, reopened by its id afterwards.

    Args:
        storage: holds the sqlite store (mlflow.db, mlartifacts/) that is used without ``config.uri``.
        run_folder: keeps the id in tracking.json.
        params: resolved settings, name to text; longer texts than MLflow's 6000 characters are cut.

    Returns a handle to pickle to the worker. When the store does not answer, one line of warning is printed and the handle is
    ``pending``: figures gather in the run folder until the store answers the worker, ``finish`` or ``flush``.
    Raises ValueError for an address that MLflow cannot use and for an experiment that was deleted.
    """
    if config.kind != "mlflow":
        return RunHandle(kind=config.kind, run_name=run_name)
    local = not config.uri
    uri = store_uri(config.uri, storage)
    artifact_root = (storage.absolute() / "mlartifacts" / config.experiment).as_uri() if local else ""
    known = load_handle(run_folder)
    if known is None or (known.uri, known.experiment) != (uri, config.experiment):
        known = RunHandle(kind="mlflow", uri=uri, experiment=config.experiment, key=uuid.uuid4().hex)
        if run_folder.exists():
            Cursor().save(run_folder)
    handle = replace(known, run_name=run_name, artifact_root=artifact_root, params=dict(params), tags=dict(tags or {}))
    handle = replace(handle, end="", end_time=0.0, end_sent=False, reopen=bool(known.run_id))
    if local:
        storage.mkdir(parents=True, exist_ok=True)
    handle.save(run_folder)
    try:
        delivery = open_delivery(handle, run_folder)
        delivery.connect()
        return delivery.handle
    except ExperimentDeleted:
        raise
    except Exception as error:  # a store that is down must not keep a run from training
        say(f"{uri} does not answer ({reason(error)}); training goes on, and its figures wait in {run_folder}")
        return handle


def store_uri(uri: str, storage: Path) -> str:
    """The address of the MLflow store; empty stands for sqlite in the storage folder. ValueError for one that cannot work."""
    if not uri:
        return f"sqlite:///{storage.absolute() / 'mlflow.db'}"
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme == "sqlite" and not uri.startswith("sqlite:////"):
        raise ValueError(
            f"tracking.uri {uri!r} is relative to the working directory, and training workers have another one; "
            "give an absolute path, with four slashes: sqlite:////path/to/mlflow.db"
        )
    if scheme not in SERVERS + DATABASES:
        raise ValueError(
            f"tracking.uri {uri!r} is no address of an MLflow store: MLflow 3 reads servers (http://HOST:5000, https://...) and "
            f"databases ({', '.join(name + '://' for name in DATABASES)}), no folders; leave it empty for a sqlite store "
            "under the storage folder"
        )
    return uri


def flush(handle: RunHandle, run_folder: Path) -> bool:
    """Sends what waits in the run folder; True when nothing waits any more. Prints one line when the store does not take it."""
    handle = load_handle(run_folder) or handle
    if handle.kind != "mlflow" or not (handle.pending or waiting(run_folder) or (handle.end and not handle.end_sent)):
        return True
    try:
        open_delivery(handle, run_folder).push()
        return True
    except Exception as error:  # the figures are safe in the run folder, and the run is not to fail for a store
        say(f"{handle.uri} does not take everything ({reason(error)}); send the rest later: {flush_command(run_folder)}")
        return False


def flush_command(run_folder: Path) -> str:
    """The command that sends what waits in the run folder, from any directory."""
    return job_command("track", "flush", run_folder.absolute(), anywhere=True)


def finish(
    handle: RunHandle,
    run_folder: Path,
    status: Status,
    artifacts: Iterable[Path] = (),
    figures: Mapping[str, bytes] | None = None,
) -> bool:
    """Ends the run: sends waiting points, sets the end state, uploads ``artifacts`` (files to the root, folders under their name;
    missing ones are left out) and ``figures`` (file name to content, kept in run_folder/figures). True when all of it arrived."""
    if handle.kind == "null":
        return True
    for name, content in (figures or {}).items():
        (run_folder / "figures").mkdir(parents=True, exist_ok=True)
        with committing(run_folder / "figures" / name) as path:
            path.write_bytes(content)
    if handle.kind != "mlflow":
        return True
    for path in [*artifacts, *([run_folder / "figures"] if figures else [])]:
        if path.exists():
            book_upload(run_folder, path, path.name if path.is_dir() else "")
    handle = replace(load_handle(run_folder) or handle, end=status, end_time=math.floor(time.time() * 1000) / 1000, end_sent=False)
    handle.save(run_folder)
    return flush(handle, run_folder)


def ui_command(handle: RunHandle, *, anywhere: bool = False) -> str:
    """The command that opens the MLflow page of the run; empty when there is none."""
    if handle.kind != "mlflow":
        return ""
    if urlsplit(handle.uri).scheme in ("http", "https"):
        run = f"/#/experiments/{handle.experiment_id}/runs/{handle.run_id}" if handle.run_id else ""
        return module_command("webbrowser", handle.uri.rstrip("/") + run, anywhere=anywhere)
    return module_command("mlflow", "ui", "--backend-store-uri", handle.uri, anywhere=anywhere)
