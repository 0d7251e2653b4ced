"""A real sqlite store. Making one takes MLflow seconds, so that the tests share it, each with an experiment of its own."""

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from elf_platform.config import TrackingConfig
from elf_platform.tracking import RunHandle, finish, flush, load_handle, open_run, start_tracker, ui_command
from elf_platform.tracking.journal import Cursor


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


def open_in(storage: Path, folder: Path, experiment: str, **params: str) -> RunHandle:
    config = TrackingConfig(experiment=experiment)
    return open_run(config, storage=storage, run_folder=folder, run_name="a run", params=params, tags={"recipe": "tiny"})


def client_of(handle: RunHandle):  # type: ignore[no-untyped-def]
    from mlflow.tracking import MlflowClient

    return MlflowClient(handle.uri)


def history(handle: RunHandle, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client_of(handle).get_metric_history(handle.run_id, name)]


def test_one_run_holds_all_and_opening_it_is_quiet(storage: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    long = "x" * 7000
    many = {f"part{i}/value": str(i) for i in range(150)}
    handle = open_in(storage, folder, "all", **{"data.paths": long, "network (width)": "64"}, **many)
    assert not handle.pending and handle.uri == f"sqlite:///{storage}/mlflow.db"
    handle = pickle.loads(pickle.dumps(handle))
    tracker = start_tracker(handle, folder)
    for step in range(3000):
        tracker.log(step, {"train/loss": 1 / (1 + step), "odd:name": 1.0})
    tracker.log(3000, {"train/loss": float("nan")})
    tracker.text("samples/0", "a text", 3000)
    tracker.close()
    artefact = folder / "artefact"
    artefact.mkdir()
    (artefact / "config.json").write_text("{}")
    (folder / "report.html").write_text("<p>")
    files = [folder / "report.html", artefact, folder / "missing.json"]
    assert finish(handle, folder, "FINISHED", files, {"loss.svg": b"<svg/>"})
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err == ""

    client = client_of(handle)
    run = client.get_run(handle.run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "a run" and run.data.tags["recipe"] == "tiny"
    assert abs(run.info.end_time / 1000 - time.time()) < 60
    assert len(run.data.params["data.paths"]) == 6000 and run.data.params["part149/value"] == "149"
    assert len(run.data.params) == 152
    assert history(handle, "train/loss") == [(step, 1 / (1 + step)) for step in range(3000)]
    assert history(handle, "train/loss.nonfinite") == [(3000, 1.0)]
    assert len(history(handle, "odd_name")) == 3000
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"report.html", "artefact", "figures", "texts"}
    assert [file.path for file in client.list_artifacts(run.info.run_id, "artefact")] == ["artefact/config.json"]
    assert [file.path for file in client.list_artifacts(run.info.run_id, "texts/samples")] == ["texts/samples/0-00003000.txt"]
    assert (storage / "mlartifacts" / "all" / run.info.run_id / "artifacts" / "figures" / "loss.svg").exists()
    assert ui_command(handle) == f"mlflow ui --backend-store-uri sqlite:///{storage}/mlflow.db"


def test_a_restart_continues_the_run_and_adds_no_point_twice(storage: Path, tmp_path: Path) -> None:
    first = open_in(storage, tmp_path, "restart", steps="100", width="8")
    tracker = start_tracker(first, tmp_path)
    for step in range(0, 60, 10):
        tracker.log(step, {"train/loss": float(step)})
        tracker.log(step, {"valid/loss": float(-step)})
    tracker.close()
    finish(first, tmp_path, "FAILED")
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 60, "time"')  # killed while writing

    second = open_in(storage, tmp_path, "restart", steps="200", width="8", depth="2")
    assert second.run_id == first.run_id
    assert client_of(second).get_run(second.run_id).info.status == "RUNNING"
    Cursor().save(tmp_path)  # as if the worker was killed after a request and before it noted it
    tracker = start_tracker(second, tmp_path)
    for step in range(30, 90, 10):  # from the checkpoint at step 20
        tracker.log(step, {"train/loss": float(step)})
        tracker.log(step, {"valid/loss": float(-step)})
    tracker.close()
    assert history(second, "train/loss") == [(step, float(step)) for step in range(0, 90, 10)]
    assert history(second, "valid/loss") == [(step, float(-step)) for step in range(0, 90, 10)]
    run = client_of(second).get_run(second.run_id)
    assert run.data.params == {"steps": "100", "width": "8", "depth": "2"} and run.data.tags["resumed.steps"] == "200"
    assert finish(second, tmp_path, "FINISHED")
    assert client_of(second).get_run(second.run_id).info.status == "FINISHED"


def test_a_run_deleted_in_the_store_is_made_anew_with_all_its_points(storage: Path, tmp_path: Path) -> None:
    first = open_in(storage, tmp_path, "deleted run")
    tracker = start_tracker(first, tmp_path)
    tracker.log(1, {"a": 1.0})
    tracker.close()
    assert history(first, "a") == [(1, 1.0)]
    client_of(first).delete_run(first.run_id)
    second = open_in(storage, tmp_path, "deleted run")
    assert second.run_id != first.run_id and flush(second, tmp_path)
    assert history(second, "a") == [(1, 1.0)]


def test_a_run_whose_creation_was_never_answered_is_found_again(storage: Path, tmp_path: Path) -> None:
    first = open_in(storage, tmp_path, "unanswered")
    lost = RunHandle(**{**vars(first), "run_id": "", "experiment_id": ""})
    lost.save(tmp_path)
    assert lost.pending and flush(lost, tmp_path)
    found = load_handle(tmp_path)
    assert found is not None and found.run_id == first.run_id


def test_a_deleted_experiment_is_refused_with_the_way_out(storage: Path, tmp_path: Path) -> None:
    handle = open_in(storage, tmp_path / "a", "gone")
    client_of(handle).delete_experiment(handle.experiment_id)
    with pytest.raises(ValueError, match="mlflow experiments restore"):
        open_in(storage, tmp_path / "b", "gone")


def test_a_server_that_is_down_costs_one_line_and_no_time(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = TrackingConfig(uri="http://127.0.0.1:9")  # the discard port: nobody listens
    start = time.monotonic()
    handle = open_run(config, storage=tmp_path, run_folder=tmp_path / "run", run_name="r", params={"a": "1"})
    assert handle.pending
    assert capfd.readouterr().err.count("\n") == 1
    tracker = start_tracker(handle, tmp_path / "run")
    tracker.log(1, {"a": 1.0})
    before = time.monotonic()
    for step in range(2, 1000):
        tracker.log(step, {"a": 1.0})
    assert time.monotonic() - before < 1.0
    tracker.close()
    assert finish(handle, tmp_path / "run", "FINISHED") is False
    assert time.monotonic() - start < 60
    kept = load_handle(tmp_path / "run")
    assert kept is not None and kept.pending and kept.end == "FINISHED" and kept.params == {"a": "1"}
    command = [sys.executable, "-m", "elf_platform.tracking", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 1
