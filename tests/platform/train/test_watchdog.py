"""A hang is seen while it lasts, and the file names the function it is in."""

import os
import re
import threading
import time
from pathlib import Path

from elf_platform.train.watchdog import Watchdog


def wait_until(condition: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def waits_for_a_lock(lock: threading.Lock) -> None:
    with lock:
        pass


def sleeps_outside_python(lines: list[str]) -> None:
    end = time.monotonic() + 20
    while not lines and time.monotonic() < end:
        time.sleep(1.0)  # one call in C that holds no lock of Python's, five periods long


def stalls(folder: Path) -> list[Path]:
    return sorted((folder / "stalls").glob("*"))


def test_the_stack_of_a_main_thread_that_sleeps_in_c(tmp_path: Path) -> None:
    lines: list[str] = []
    before = time.time()
    with Watchdog(0.2, tmp_path, 3, lines.append) as watchdog:
        watchdog.beat(41)
        sleeps_outside_python(lines)
    path = stalls(tmp_path)[0]
    match = re.fullmatch(r"rank-00003-(\d+)\.txt", path.name)
    assert match and int(before) <= int(match[1]) <= time.time()
    text = path.read_text()
    assert "in sleeps_outside_python" in text and "in test_the_stack_of_a_main_thread_that_sleeps_in_c" in text
    header = text.splitlines()[0]
    assert f"worker 3 (process {os.getpid()} on {os.uname().nodename})" in header and "since step 41" in header
    assert float(re.search(r"no progress for (\d+) s", header)[1]) < 20  # type: ignore[index]
    assert lines[0].startswith("worker 3") and lines[0].endswith(str(path)) and "\n" not in lines[0]


def test_the_stack_of_another_thread_that_waits_for_a_lock(tmp_path: Path) -> None:
    lock, lines = threading.Lock(), list[str]()
    with lock:
        stuck = threading.Thread(target=waits_for_a_lock, args=(lock,), name="the feed", daemon=True)
        stuck.start()
        with Watchdog(0.1, tmp_path, 0, lines.append):
            wait_until(lambda: lines)
    stuck.join(10)
    text = stalls(tmp_path)[0].read_text()
    assert "in waits_for_a_lock" in text and f"0x{stuck.ident:016x} is the feed" in text
    assert "since it started" in text.splitlines()[0]  # the first beat never came


def test_beats_keep_it_quiet_and_a_stall_after_them_does_not(tmp_path: Path) -> None:
    lines: list[str] = []
    with Watchdog(1.0, tmp_path, 0, lines.append) as watchdog:
        last, longest = time.monotonic(), 0.0
        for step in range(75):
            watchdog.beat(step)
            last, longest = time.monotonic(), max(longest, time.monotonic() - last)
            time.sleep(0.02)
        # A machine so busy that this loop itself stood still for a second was rightly reported.
        assert longest > 0.9 or (lines == [] and stalls(tmp_path) == [])
        wait_until(lambda: lines and "since step 74" in lines[-1])


def test_it_tells_once_a_period_and_stops_at_the_end(tmp_path: Path) -> None:
    told: list[float] = []
    started = time.monotonic()
    with Watchdog(0.3, tmp_path, 0, lambda line: told.append(time.monotonic())):
        wait_until(lambda: len(told) == 3)
    assert told[0] - started >= 0.3 and min(told[1] - told[0], told[2] - told[1]) >= 0.3
    count = len(told)
    time.sleep(0.7)
    assert len(told) == count
    assert not any(thread.name == "watchdog" for thread in threading.enumerate())


def test_zero_watches_nothing(tmp_path: Path) -> None:
    threads = threading.active_count()
    with Watchdog(0, tmp_path, 0, lambda line: None) as watchdog:
        watchdog.beat(1)
        assert threading.active_count() == threads


def test_neither_a_full_disk_nor_a_broken_notification_ends_the_watch(tmp_path: Path) -> None:
    (tmp_path / "stalls").write_text("a file where the folder should be")
    lines: list[str] = []

    def notify(line: str) -> None:
        lines.append(line)
        raise OSError("no space left")

    with Watchdog(0.1, tmp_path, 0, notify):
        wait_until(lambda: len(lines) >= 2)
    assert "could not be written" in lines[0]
