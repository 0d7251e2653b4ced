"""What the driver shows of a run folder, on a terminal (a real pseudo-terminal) and elsewhere."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from elf_platform.tracking import RunHandle, book_event, start_tracker
from elf_platform.train.progress import Progress


def test_elsewhere_events_are_lines_and_old_ones_are_not_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    book_event(tmp_path, 0, "attempt", "of the day before")
    with Progress(tmp_path, total=20, title="elf") as progress:
        tracker = start_tracker(RunHandle(kind="jsonl"), tmp_path)
        tracker.event(0, "attempt", "2 workers [red], processes 1 on a, 2 on b")
        tracker.log(10, {"train/loss": 2.0})
        tracker.event(5, "passed_over", "step-00000010 has no\nmarker")
        tracker.event(5, "attempt", "1 worker")
        tracker.log(7, {"train/loss": 2.5})
        tracker.close()
        with open(tmp_path / "events.jsonl", "a") as file:
            file.write('{"step": 9, "ki')  # being written
        progress.say("stopping")
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        "elf: starting workers",
        "elf: stopping",
        "elf: step 0, attempt: 2 workers [red], processes 1 on a, 2 on b",
        "elf: step 5, passed over: step-00000010 has no marker",
        "elf: step 5, attempt: 1 worker",
        "elf: step 7 of 20, loss 2.5",
    ]


def test_a_run_that_goes_on_says_from_where(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Progress(tmp_path, total=20, title="encoder", first=12):
        pass
    assert capfd.readouterr().err == "encoder: starting workers, to go on from step 12\n"


def test_a_validation_is_told_once_with_its_step_and_a_stop_is_the_last_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elf_platform.train.progress.PLAIN_EVERY_S", 0.0)
    tracker = start_tracker(RunHandle(kind="jsonl"), tmp_path)
    with pytest.raises(KeyboardInterrupt), Progress(tmp_path, total=20, title="elf") as progress:
        tracker.log(0, {"valid/loss": 9.0})
        tracker.log(1, {"train/loss": 8.0})
        tracker.log(2, {"train/loss": 7.0})
        tracker.log(4, {"valid/loss": 6.0})
        progress._poll()
        monkeypatch.setattr("elf_platform.train.progress.PLAIN_EVERY_S", 1000.0)
        tracker.log(5, {"train/loss": 5.0, "perf/step_seconds": 1.0})
        progress.say("stopping")
        raise KeyboardInterrupt
    assert capfd.readouterr().err.splitlines() == [
        "elf: starting workers",
        "elf: step 0 of 20, validation 9 (step 0)",
        "elf: step 1 of 20, loss 8",
        "elf: step 2 of 20, loss 7",
        "elf: step 4 of 20, loss 7, validation 6 (step 4)",
        "elf: stopping",
    ]


PROGRAM = """
import sys, time
from pathlib import Path
from elf_platform.tracking import RunHandle, start_tracker
from elf_platform.train.progress import Progress
folder = Path(sys.argv[1])
tracker = start_tracker(RunHandle(kind="jsonl"), folder)
with Progress(folder, total=20, title="elf"):
    tracker.event(0, "attempt", "2 workers")
    tracker.log(15, {"train/loss": 2.0})
    time.sleep(1.2)
    tracker.event(5, "attempt", "1 worker")
    time.sleep(1.2)
    tracker.log(6, {"train/loss": 3.0})
"""


def test_on_a_terminal_the_bar_goes_back_to_where_a_restart_goes_on(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "COLUMNS": "140", "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], env=environment, stderr=follower)
    os.close(follower)
    shown = b""
    try:
        while part := os.read(leader, 65536):
            shown += part
    except OSError:  # the other end was closed
        pass
    os.close(leader)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    states = [found[0] for found in re.findall(r"(\d+/20 +(loss [\d.]+|starting workers))", text)]
    states = [" ".join(state.split()) for state, before in zip(states, ["", *states], strict=False) if state != before]
    assert states == ["0/20 starting workers", "15/20 loss 2", "5/20 starting workers", "6/20 loss 3"]
    assert "elf: step 0, attempt: 2 workers" in text and "elf: step 5, attempt: 1 worker" in text
