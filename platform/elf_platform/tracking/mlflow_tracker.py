"""MLflow as a store of figures. The one module that imports MLflow, and it is itself imported only where MLflow is used."""

import logging
import os
import shlex
import socket
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

# Read by MLflow when it is imported or when it sends. Without the first four it prints migrations, tracebacks and addresses among
# the lines of training, looks for a git program, and calls home. Its seven retries would hold a run's start and end for minutes:
# the journal retries instead.
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from elf_platform.commands import module_command
from elf_platform.redact import with_password
from elf_platform.tracking.base import RunHandle
from elf_platform.tracking.delivery import NAME_LIMIT, ExperimentDeleted, Point, clean_name

for _name in ("alembic", "mlflow", "urllib3.connectionpool"):
    logging.getLogger(_name).setLevel(logging.ERROR)

KEY_TAG = "elf.key"
KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"
"""What MLflow's pages take an experiment for: the training of models, with charts grouped by the first word of their names. Without it the
page opens in a view for language model calls, which is empty."""
VALUE_LIMIT = 6000
TAG_LIMIT = 5000  # of older servers; newer ones take 8000
PER_BATCH = 100  # params or tags in one request
PROBE_SECONDS = 5.0


class MlflowStore:
    """One run in an MLflow store. Methods raise whatever MLflow raises; the delivery deals with it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client: MlflowClient | None = None
        self._run_id = ""

    def connect(self, handle: RunHandle) -> RunHandle:
        """See ``Store.connect``. Raises ExperimentDeleted when the experiment was deleted: only the user can decide on that."""
        _probe(self.uri)
        if self._client is None:
            self._client = MlflowClient(with_password(self.uri))
        run = self._known_run(self._client, handle) if handle.run_id else None
        if run is None:
            experiment_id = self._experiment(self._client, handle)
            run = self._make_run(self._client, handle, experiment_id)
        self._run_id = run.info.run_id
        self._log_params(self._client, run, handle)
        if handle.reopen and run.info.status != "RUNNING":
            self._client.update_run(self._run_id, status="RUNNING")
        return replace(handle, experiment_id=run.info.experiment_id, run_id=self._run_id)

    def latest_steps(self) -> dict[str, int]:
        assert self._client is not None
        # MLflow's latest metric is the one of the highest step; its public view of them leaves the step out, and asking for the
        # history of each metric would be a request for each.
        return {metric.key: metric.step for metric in self._client.get_run(self._run_id).data._metric_objs}

    def steps_from(self, name: str, first: int) -> set[int]:
        assert self._client is not None
        return {metric.step for metric in self._client.get_metric_history(self._run_id, name) if metric.step >= first}

    def send(self, points: list[Point]) -> None:
        assert self._client is not None
        metrics = [Metric(point.name, point.value, round(point.time * 1000), point.step) for point in points]
        self._client.log_batch(self._run_id, metrics=metrics)

    def tag(self, tags: Mapping[str, str]) -> None:
        assert self._client is not None
        self._log_tags(self._client, self._run_id, tags)

    def upload(self, path: Path, folder: str) -> None:
        assert self._client is not None
        if path.is_dir():
            self._client.log_artifacts(self._run_id, str(path), folder or None)
        else:
            self._client.log_artifact(self._run_id, str(path), folder or None)

    def end(self, status: str, time: float) -> None:
        assert self._client is not None
        self._client.set_terminated(self._run_id, status, end_time=round(time * 1000))

    @staticmethod
    def _known_run(client: MlflowClient, handle: RunHandle) -> Run | None:
        """The run, or None when it is no longer there, or is another one than the handle's, which anybody may have written."""
        try:
            run = client.get_run(handle.run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        ours = run.data.tags.get(KEY_TAG) == handle.key
        return run if ours and run.info.lifecycle_stage == "active" else None

    @staticmethod
    def _experiment(client: MlflowClient, handle: RunHandle) -> str:
        experiment = client.get_experiment_by_name(handle.experiment)
        if experiment is None:
            try:
                root = handle.artifact_root or None
                return str(client.create_experiment(handle.experiment, artifact_location=root, tags={KIND_TAG: KIND}))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = client.get_experiment_by_name(handle.experiment)  # another run was faster
        assert experiment is not None
        if experiment.lifecycle_stage != "active":
            raise ExperimentDeleted(
                f"the MLflow experiment {handle.experiment!r} at {handle.uri} was deleted, and MLflow keeps its name; bring it "
                f"back with `MLFLOW_TRACKING_URI={shlex.quote(handle.uri)} {module_command('mlflow')} experiments restore --experiment-id "
                f"{experiment.experiment_id}`, or set tracking.experiment to another name"
            )
        if KIND_TAG not in experiment.tags:
            client.set_experiment_tag(experiment.experiment_id, KIND_TAG, KIND)
        return str(experiment.experiment_id)

    @staticmethod
    def _make_run(client: MlflowClient, handle: RunHandle, experiment_id: str) -> Run:
        """The run with the handle's key, made if there is none: a request that was taken but not answered leaves one."""
        found = client.search_runs([experiment_id], filter_string=f"tags.`{KEY_TAG}` = '{handle.key}'", max_results=1)
        if found:
            return found[0]
        tags = {clean_name(key): _cut(value, TAG_LIMIT) for key, value in handle.tags.items()}
        start = round(time.time() * 1000)
        return client.create_run(experiment_id, start, tags | {KEY_TAG: handle.key}, run_name=handle.run_name or None)

    @staticmethod
    def _log_params(client: MlflowClient, run: Run, handle: RunHandle) -> None:
        """Adds the missing ones. MLflow never changes a param: one that differs now is kept as a tag ``resumed.<name>``."""
        known = run.data.params
        wanted = {clean_name(key): _cut(value, VALUE_LIMIT) for key, value in handle.params.items()}
        missing = [Param(key, value) for key, value in wanted.items() if key not in known]
        for start in range(0, len(missing), PER_BATCH):
            client.log_batch(run.info.run_id, params=missing[start : start + PER_BATCH])
        changed = {f"resumed.{key}"[:NAME_LIMIT]: value for key, value in wanted.items() if known.get(key, value) != value}
        MlflowStore._log_tags(client, run.info.run_id, changed)

    @staticmethod
    def _log_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
        found = [RunTag(key, _cut(value, TAG_LIMIT)) for key, value in tags.items()]
        for start in range(0, len(found), PER_BATCH):
            client.log_batch(run_id, tags=found[start : start + PER_BATCH])


def _cut(value: str, limit: int) -> str:
    return value if len(value) <= limit else value[: limit - 1] + "…"


def _probe(uri: str) -> None:
    """OSError at once when nobody listens: MLflow's own time-out is two minutes, and a run waits for this at its start."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or urllib.request.getproxies().get(parts.scheme):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    socket.create_connection((parts.hostname or "", port), timeout=PROBE_SECONDS).close()
