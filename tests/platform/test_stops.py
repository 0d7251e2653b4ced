"""A stop at any moment of a job: one readable line, the status of a stop, and nothing left running."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from small_artefact import small_artefact

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240


class Job:
    """One command with a home and a session of its own."""

    def __init__(self, home: Path, words: list[str]) -> None:
        home.mkdir()
        self.log = home / "said"
        path = os.pathsep.join(str(ROOT / part) for part in ("platform", "model"))
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "ELF_"))}
        self.mark = str(home / "storage")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "jobs" / words[0]), *words[1:]],
                env=clean | {"ELF_HOME": self.mark, "PYTHONPATH": path, "COLUMNS": "200"}, stdout=log, stderr=log, cwd=home,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def family(self) -> list[psutil.Process]:
        """All processes that were started by the job, also those whose parent has gone: the environment is handed down."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("ELF_HOME") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def has(self, part: str) -> bool:
        return any(part in " ".join(process.cmdline()) for process in self.family() if process.is_running())

    def until(self, moment: Callable[["Job"], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not moment(self):
            assert self.process.poll() is None, f"it ended with {self.process.returncode} before that moment\n{self.said()}"
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def end(self) -> None:
        for process in self.family():
            process.kill()
        self.process.wait(30)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Callable[[list[str]], Job]]:
    started: list[Job] = []

    def start(words: list[str]) -> Job:
        started.append(Job(tmp_path / f"home-{len(started)}", words))
        return started[-1]

    yield start
    for job in started:
        job.end()


def after(seconds: float) -> Callable[[Job], bool]:
    start: list[float] = []

    def moment(job: Job) -> bool:
        start.append(time.monotonic())
        return start[-1] - start[0] >= seconds

    return moment


def ray(part: str, seconds: float = 0.0) -> Callable[[Job], bool]:
    """``seconds`` after a process of Ray is there."""
    later = after(seconds)
    return lambda job: job.has(part) and later(job)


WORDS = {signal.SIGTERM: ("terminated", 143), signal.SIGINT: ("interrupted", 130)}


def stop(job: Job, moment: Callable[[Job], bool], number: signal.Signals) -> None:
    """Stops the job at that moment, and looks at its end."""
    job.until(moment)
    job.process.send_signal(number)
    status = job.process.wait(PATIENCE)
    word, expected = WORDS[number]
    assert status == expected, f"status {status}\n{job.said()}"
    assert job.said().count(word) == 1 and "Traceback" not in job.said() and "Exception ignored" not in job.said(), job.said()
    deadline = time.monotonic() + 30  # processes of Ray notice on their own that they are alone
    while job.family() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not job.family(), [process.cmdline() for process in job.family()]


def started(job: Job) -> bool:
    """Python runs, and imports what the command line needs."""
    return Path(f"/proc/{job.process.pid}/maps").read_text().count("libtorch") > 0 if job.process.poll() is None else True


@pytest.mark.parametrize("number", list(WORDS))
def test_a_stop_while_libraries_are_imported(jobs: Callable[[list[str]], Job], number: signal.Signals) -> None:
    stop(jobs(["pretrain.py", "tiny"]), started, number)


MOMENTS = {
    "head": ray("gcs_server"),
    "head, a second later": ray("gcs_server", 1.0),
    "node": ray("raylet/raylet"),
    "node, a second later": ray("raylet/raylet", 1.0),
    "sums": lambda job: "preflight" in job.said(),
    "data": lambda job: "reading:" in job.said(),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", [pytest.param(name, marks=[] if name in ("node", "data") else pytest.mark.full) for name in MOMENTS])
def test_a_stop_while_training_starts(jobs: Callable[[list[str]], Job], moment: str) -> None:
    stop(jobs(["pretrain.py", "tiny"]), MOMENTS[moment], signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("number", list(WORDS))
@pytest.mark.parametrize("name", [pytest.param("prepare", marks=pytest.mark.full), "sample"])
def test_a_stop_while_ray_starts_for_another_job(
    jobs: Callable[[list[str]], Job], name: str, number: signal.Signals, tmp_path: Path
) -> None:
    words = {"prepare": ["tiny"], "sample": [str(small_artefact(tmp_path / "artefact")), "--count", "8", "--out", str(tmp_path / "out")]}
    stop(jobs([f"{name}.py", *words[name]]), ray("gcs_server", 0.5), number)
