import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from elf_platform.config import TrackingConfig
from elf_platform.tracking import book_event, finish, flush, open_run, read_events, read_metrics, start_tracker, ui_command
from elf_platform.tracking.base import RunHandle
from elf_platform.tracking.journal import EVENTS_FILE, Cursor, append


def journal_handle(kind: str, folder: Path) -> RunHandle:
    return open_run(TrackingConfig(kind=kind), storage=folder, run_folder=folder / "run", run_name="r", params={"a": "1"})  # type: ignore[arg-type]


def test_jsonl_keeps_every_point_in_the_documented_form(tmp_path: Path) -> None:
    handle = journal_handle("jsonl", tmp_path)
    tracker = start_tracker(handle, tmp_path / "run")
    tracker.log(0, {"train/loss": 2.0, "optim/lr": 0.1})
    tracker.log(10, {"train/loss": 1.5})
    tracker.text("samples/0", "a text", 10)
    tracker.close()
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert set(first) == {"step", "time", "metrics"} and first["metrics"] == {"train/loss": 2.0, "optim/lr": 0.1}
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == [(0, first["metrics"]), (10, {"train/loss": 1.5})]
    assert (tmp_path / "run" / "texts" / "samples" / "0-00000010.txt").read_text() == "a text"
    assert finish(handle, tmp_path / "run", "FINISHED") and flush(handle, tmp_path / "run")
    assert ui_command(handle) == ""


def test_null_leaves_no_file_at_all(tmp_path: Path) -> None:
    handle = journal_handle("null", tmp_path)
    tracker = start_tracker(handle, tmp_path / "run")
    tracker.log(0, {"train/loss": 2.0})
    tracker.text("samples/0", "a text", 0)
    tracker.artifact(tmp_path)
    tracker.close()
    finish(handle, tmp_path / "run", "FINISHED", [tmp_path], {"loss.svg": b"<svg/>"})
    assert list(tmp_path.iterdir()) == []


def test_texts_of_one_name_and_step_are_all_kept_and_repeats_are_not_doubled(tmp_path: Path) -> None:
    tracker = start_tracker(RunHandle(kind="jsonl"), tmp_path)
    for text in ("first", "second \ud800", "first", "second \ud800"):
        tracker.text("a warning", text, 5)
    tracker.close()
    found = {path.name: path.read_text() for path in (tmp_path / "texts").iterdir()}
    assert found == {"a_warning-00000005.txt": "first", "a_warning-00000005-2.txt": "second ?"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_becomes_a_flag(tmp_path: Path, value: float) -> None:
    tracker = start_tracker(journal_handle("jsonl", tmp_path), tmp_path)
    tracker.log(3, {"train/loss": value, "optim/lr": 0.5})
    tracker.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [(3, {"train/loss.nonfinite": 1.0, "optim/lr": 0.5})]


def test_points_survive_a_process_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from elf_platform.tracking import RunHandle, start_tracker\n"
        "tracker = start_tracker(RunHandle(kind='jsonl'), Path(sys.argv[1]))\n"
        "for step in range(50): tracker.log(step, {'a': step})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=_python_path()).returncode == -9
    assert read_metrics(tmp_path / "metrics.jsonl") == [(step, {"a": step}) for step in range(50)]


@pytest.mark.parametrize("torn", ['{"step": 7, "ti', '{"step": 7, "time": 1, "metrics": {"a": 7}}', "\0\0\0"])
def test_resume_cuts_a_torn_line_and_readers_leave_it_out(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = "".join(f'{{"step": {step}, "time": 1, "metrics": {{"a": {step}}}}}\n' for step in range(3))
    path.write_text(whole + torn)
    assert [step for step, _ in read_metrics(path)] == [0, 1, 2]
    append(path, {"step": 3, "time": 1, "metrics": {"a": 3}})
    assert path.read_text().startswith(whole + '{"step": 3,')
    assert read_metrics(path) == [(step, {"a": step}) for step in range(4)]


def test_steps_that_were_run_again_have_the_values_logged_last(tmp_path: Path) -> None:
    tracker = start_tracker(RunHandle(kind="jsonl"), tmp_path)
    for step in (10, 20, 30):
        tracker.log(step, {"a": float(step), "b": 1.0})
    tracker.close()
    again = start_tracker(RunHandle(kind="jsonl"), tmp_path)  # restarted from a checkpoint at step 10
    again.log(20, {"a": 21.0})
    again.close()
    expected = [(10, {"a": 10.0, "b": 1.0}), (20, {"a": 21.0, "b": 1.0}), (30, {"a": 30.0, "b": 1.0})]
    assert read_metrics(tmp_path / "metrics.jsonl") == expected
    assert read_metrics(tmp_path / "nothing.jsonl") == []


def test_a_cursor_that_does_not_fit_its_journal_starts_over(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    Cursor(12, 0).save(tmp_path)
    assert Cursor.read(tmp_path) == Cursor(12, 0)
    (tmp_path / "tracking.cursor").write_text('{"metrics": 12, "uploads": 0}')  # of a version without events
    assert Cursor.read(tmp_path) == Cursor(12, 0, 0)
    Cursor(99, 5, 7).save(tmp_path)
    assert Cursor.read(tmp_path) == Cursor(0, 0)
    (tmp_path / "tracking.cursor").write_text("{")
    assert Cursor.read(tmp_path) == Cursor(0, 0)


def test_events_of_several_processes_are_whole_lines_in_one_file(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from elf_platform.tracking import book_event\n"
        "for i in range(200): book_event(Path(sys.argv[1]), i, sys.argv[2], 'x' * 20_000)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    writers = [subprocess.Popen([*command, kind], env=_python_path()) for kind in ("skip", "resize")]
    assert [writer.wait() for writer in writers] == [0, 0]
    events = read_events(tmp_path)
    assert len((tmp_path / EVENTS_FILE).read_bytes().splitlines()) == len(events) == 400
    for kind in ("skip", "resize"):
        assert [event.step for event in events if event.kind == kind] == list(range(200))


def test_an_event_after_a_torn_line_takes_its_place(tmp_path: Path) -> None:
    book_event(tmp_path, 0, "attempt", "first")
    with open(tmp_path / EVENTS_FILE, "a") as file:
        file.write('{"step": 1, "kin')
    tracker = start_tracker(RunHandle(kind="jsonl"), tmp_path)
    tracker.event(4, "attempt", "second")
    tracker.close()
    lines = (tmp_path / EVENTS_FILE).read_text().splitlines()
    assert len(lines) == 2 and json.loads(lines[1])["text"] == "second"
    assert [(event.step, event.text) for event in read_events(tmp_path)] == [(0, "first"), (4, "second")]


def test_a_full_disk_stops_nobody_and_costs_no_point(tmp_path: Path) -> None:
    """A limit on the size of files fails writes as a full disk does: in the middle of a line, then at once."""
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from elf_platform.tracking import RunHandle, start_tracker\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "tracker = start_tracker(RunHandle(kind='jsonl'), Path(sys.argv[1]))\n"
        "for step in range(60):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (1000 if 5 < step < 50 else hard, hard))\n"
        "    tracker.log(step, {'a': step})\n"
        "    if step == 30:\n"
        "        tracker.event(step, 'warning', 'x' * 5000)\n"
        "        tracker.text('warning', 'x' * 5000, step)\n"
        "tracker.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=_python_path(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_metrics(tmp_path / "metrics.jsonl") == [(step, {"a": step}) for step in range(60)]
    assert done.stderr.count("they wait in memory") == 1 and "could not be written" in done.stderr


@pytest.mark.parametrize(
    "uri, words", [("mlruns", "no folders"), ("file:///tmp/mlruns", "no folders"), ("sqlite:///mlflow.db", "sqlite:////")]
)
def test_an_address_that_cannot_work_is_refused_with_the_way_out(tmp_path: Path, uri: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        open_run(TrackingConfig(uri=uri), storage=tmp_path, run_folder=tmp_path / "run", run_name="r", params={})


def _python_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
