"""The driver's side of tracking: open the one run before training, send and end it afterwards. Never stops a run for a server."""

import math
import os
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from elf.files import committing, inside
from elf_platform.commands import job_command, module_command
from elf_platform.config import TrackingConfig
from elf_platform.config_io import default_storage
from elf_platform.redact import credentials, redact, take_login
from elf_platform.tracking.base import RunHandle, Status, load_handle, newest
from elf_platform.tracking.delivery import ExperimentDeleted, open_delivery, reason, say
from elf_platform.tracking.journal import Cursor, waiting
from elf_platform.tracking.trackers import book_upload

SERVERS = ("http", "https", "databricks")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def open_run(
    config: TrackingConfig,
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
    artifact_root = artifacts_of(storage, config.experiment) if local else ""
    known = load_handle(run_folder)
    if known is None or (known.uri, known.experiment) != (uri, config.experiment):
        known = RunHandle(kind="mlflow", uri=uri, experiment=config.experiment, key=uuid.uuid4().hex)
        if run_folder.exists():
            Cursor().save(run_folder)
    handle = replace(known, run_name=run_name, artifact_root=artifact_root, params=dict(params), tags=dict(tags or {}))
    handle = replace(handle, end="", end_time=0.0, end_sent=False, reopen=bool(known.run_id), credentials=credentials())
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
        return _sqlite_uri(storage.absolute() / "mlflow.db")
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme == "sqlite" and not _database(uri).startswith(("/", "file:/")):
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


def _database(uri: str) -> str:
    """The path in an address of sqlite."""
    from sqlalchemy.engine import make_url

    return make_url(uri).database or ""


def _sqlite_uri(path: Path) -> str:
    """Plain where it is read back as the same path; else (a ? or % in it) as a file address within the address. The driver is named there,
    because MLflow makes the folders of plain sqlite addresses without decoding them, beside the storage."""
    from sqlalchemy.engine import URL, make_url

    plain = f"sqlite:///{path}"
    read = make_url(plain)
    if read.database == str(path) and not read.query:
        return plain
    return URL.create("sqlite+pysqlite", database=path.as_uri(), query={"uri": "true"}).render_as_string(hide_password=False)


def artifacts_of(storage: Path, experiment: str) -> str:
    """Where the artefacts of a local store lie. ValueError for an experiment whose name leads out of it."""
    root = storage.absolute() / "mlartifacts"
    try:
        return inside(root, experiment).as_uri()
    except ValueError as error:
        raise ValueError(f"tracking.experiment {experiment!r} is a path out of {root}; give it another name") from error


def flush(handle: RunHandle, run_folder: Path) -> bool:
    """Sends what waits in the run folder; True when nothing waits any more. Prints one line when the store does not take it."""
    handle = newest(handle, run_folder)
    if handle.kind != "mlflow" or not (handle.pending or waiting(run_folder) or (handle.end and not handle.end_sent)):
        return True
    try:
        open_delivery(handle, run_folder).push()
        return True
    except Exception as error:  # the figures are safe in the run folder, and the run is not to fail for a store
        say(f"{handle.uri} does not take everything ({reason(error)}); send the rest later: {flush_command(handle, run_folder)}")
        return False


def flush_command(handle: RunHandle, run_folder: Path) -> str:
    """The command that sends what waits in the run folder, from any directory; with the store by name, unless it is the storage's own."""
    return job_command("track", "flush", run_folder.absolute(), *naming(handle.uri), anywhere=True)


def naming(uri: str) -> list[str]:
    """Words of a command that name a store which the user has to name, because only a run folder does."""
    return ["--tracking.uri", uri] if uri and uri not in known_stores() else []


def known_stores() -> list[str]:
    """The stores that the user has named without a setting: that of $ELF_HOME, and MLflow's own variable."""
    named = os.environ.get("MLFLOW_TRACKING_URI", "")
    return [store_uri("", default_storage()), *([take_login(named, "MLFLOW_TRACKING_URI")] if named else [])]


def trusted(handle: RunHandle, run_folder: Path, given: str = "") -> RunHandle:
    """The handle of a run folder, for sending: its store must be one that the user has named, by ``given`` (--tracking.uri) or as in
    ``known_stores``, since the folder may come from anywhere.

    Raises ValueError that says how to name it."""
    allowed = [store_uri(take_login(given, "--tracking.uri"), default_storage())] if given else known_stores()
    if handle.uri not in allowed:
        raise ValueError(
            f"{run_folder} says that its figures belong to {redact(handle.uri)}, which is not where you send figures "
            f"({redact(', '.join(allowed))}); a folder that came from elsewhere may name any server. If you want them there, say so:\n"
            f"    {flush_command(handle, run_folder)}"
        )
    storages = (default_storage(), run_folder.absolute().parents[1])  # a run lies in STORAGE/runs/NAME
    own = next((storage for storage in storages if store_uri("", storage) == handle.uri), None)
    root = artifacts_of(own, handle.experiment) if own else ""
    return replace(handle, artifact_root=root, credentials=credentials())


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
    handle = replace(newest(handle, run_folder), end=status, end_time=math.floor(time.time() * 1000) / 1000, end_sent=False)
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
