"""A real sqlite store. Making one takes MLflow seconds, so that the tests share it, each with an experiment of its own."""

import importlib.util
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from elf_platform.commands import module_command
from elf_platform.config import TrackingConfig
from elf_platform.tracking import RunHandle, book_event, finish, flush, load_handle, open_run, start_tracker, ui_command
from elf_platform.tracking.delivery import open_delivery
from elf_platform.tracking.journal import METRICS_FILE, Cursor, append

ROOT = Path(__file__).resolve().parents[3]


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
    assert ui_command(handle) == module_command("mlflow", "ui", "--backend-store-uri", f"sqlite:///{storage}/mlflow.db")


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


def test_of_steps_that_are_logged_again_only_those_the_store_lacks_are_sent(storage: Path, tmp_path: Path) -> None:
    """Lines of four attempts with other intervals and a new metric, sent in several batches and after a lost note of the last one."""
    handle = open_in(storage, tmp_path, "again")
    expected: dict[tuple[str, int], float] = {}
    for first, last, every, names in ((0, 600, 2, 2), (401, 640, 3, 3), (100, 660, 5, 3), (399, 700, 1, 4)):
        if first == 100:
            assert flush(handle, tmp_path)  # the first two in one go, unsent until now
            behind = Cursor.read(tmp_path)
        for step in range(first, last, every):
            line = {f"m{name}": 1000.0 * name + step for name in range(names)}
            append(tmp_path / METRICS_FILE, {"step": step, "time": float(10_000 * first + step), "metrics": line})
            expected |= {(name, step): value for name, value in line.items()}
        if first == 100:
            assert flush(handle, tmp_path)
            behind.save(tmp_path)
    assert flush(handle, tmp_path)
    found = {(f"m{name}", step): value for name in range(4) for step, value in history(handle, f"m{name}")}
    assert found == expected
    assert sum(len(history(handle, f"m{name}")) for name in range(4)) == len(expected)


def test_events_become_tags_once_and_attempts_are_counted(storage: Path, tmp_path: Path) -> None:
    first = open_in(storage, tmp_path, "events")
    tracker = start_tracker(first, tmp_path)
    tracker.event(0, "attempt", "1 worker")
    tracker.event(7, "skip", "loss not finite; rows 8 to 15 " + "x" * 9000)
    tracker.close()
    second = open_in(storage, tmp_path, "events")
    (tmp_path / "tracking.cursor").write_text(f'{{"metrics": {Cursor.read(tmp_path).metrics}, "uploads": 0}}')  # of an older version
    tracker = start_tracker(second, tmp_path)
    tracker.event(4, "attempt", "2 workers")
    tracker.close()
    book_event(tmp_path, 9, "resize", "2 to 1 workers \ud800")
    assert finish(second, tmp_path, "FINISHED")
    tags = client_of(second).get_run(second.run_id).data.tags
    assert tags["attempts"] == "2"
    assert tags["attempt.0001"] == "step 0: 1 worker" and tags["attempt.0003"] == "step 4: 2 workers"
    assert tags["resize.0004"] == "step 9: 2 to 1 workers ?"
    assert tags["skip.0002"].startswith("step 7: loss not finite; rows 8 to 15 xx") and len(tags["skip.0002"]) == 5000
    assert sum(name[-5:].startswith(".0") for name in tags) == 4


def test_only_a_new_attempt_opens_a_finished_run_again(storage: Path, tmp_path: Path) -> None:
    handle = open_in(storage, tmp_path, "ended")
    late = open_delivery(handle, tmp_path)  # a worker that hangs in a request while the driver ends the run
    tracker = start_tracker(handle, tmp_path)
    tracker.log(1, {"a": 1.0})
    tracker.close()
    assert finish(handle, tmp_path, "FINISHED")
    late.push()
    assert flush(handle, tmp_path)
    append(tmp_path / METRICS_FILE, {"step": 2, "time": time.time(), "metrics": {"a": 2.0}})
    assert flush(handle, tmp_path) and history(handle, "a") == [(1, 1.0), (2, 2.0)]
    run = client_of(handle).get_run(handle.run_id)
    assert run.info.status == "FINISHED"
    kept = load_handle(tmp_path)
    assert kept is not None and kept.end == "FINISHED" and kept.end_sent
    again = open_in(storage, tmp_path, "ended")
    assert client_of(again).get_run(again.run_id).info.status == "RUNNING"
    assert finish(again, tmp_path, "KILLED")
    assert client_of(again).get_run(again.run_id).info.status == "KILLED"


def test_a_run_deleted_in_the_store_is_made_anew_with_all_its_points(storage: Path, tmp_path: Path) -> None:
    first = open_in(storage, tmp_path, "deleted-run")
    tracker = start_tracker(first, tmp_path)
    tracker.log(1, {"a": 1.0})
    tracker.close()
    assert history(first, "a") == [(1, 1.0)]
    client_of(first).delete_run(first.run_id)
    second = open_in(storage, tmp_path, "deleted-run")
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
    assert job().main(["flush", str(tmp_path / "run"), "--tracking.uri", config.uri]) == 1
    told = capfd.readouterr()
    assert "999 points still here" in told.out
    again = told.err.partition("send the rest later: ")[2].splitlines()[0]
    done = subprocess.run(again, shell=True, cwd="/", env=environment(), capture_output=True, text=True)  # works from anywhere
    assert done.returncode == 1 and done.stderr.count("send the rest later") == 1 and "Traceback" not in done.stderr


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def job() -> ModuleType:
    """jobs/track.py, in this process: starting another one takes seconds."""
    spec = importlib.util.spec_from_file_location("track_job", ROOT / "jobs/track.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_job_finds_runs_by_name_and_tells_what_waits(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELF_HOME", str(tmp_path))
    main = job().main
    folder = tmp_path / "runs" / "my-run"
    handle = open_in(storage, folder, "job")
    append(folder / METRICS_FILE, {"step": 1, "time": 1.0, "metrics": {"a": 1.0, "b": 2.0}})
    book_event(folder, 0, "attempt", "1 worker, plain engine")
    assert main(["status", "my-run"]) == 0
    before = capsys.readouterr().out
    assert "2 points, 1 event" in before and handle.run_id in before and "1 worker, plain engine" in before
    assert main(["flush", "my-run", "--tracking.uri", handle.uri]) == 0
    assert history(handle, "b") == [(1, 2.0)]
    main(["status", str(folder)])
    assert "waits     nothing" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match=r"did you mean my-run\?"):
        main(["flush", "my-ran"])
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "runs" / "other" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="not tracked with MLflow"):
        main(["flush", "other"])
    main(["status", "other"])
    assert "in the run folder only" in capsys.readouterr().out


def test_mlflow_takes_the_experiment_for_model_training(storage: Path, tmp_path: Path) -> None:
    """Its page opens in an empty view of language model calls otherwise; one that is there already, of another program, is tagged too."""
    handle = open_in(storage, tmp_path / "new", "tagged")
    client = client_of(handle)
    assert client.get_experiment(handle.experiment_id).tags["mlflow.experimentKind"] == "custom_model_development"
    other = client.create_experiment("older")
    found = open_in(storage, tmp_path / "old", "older")
    assert found.experiment_id == other and client.get_experiment(other).tags["mlflow.experimentKind"] == "custom_model_development"
