"""Tracking matrix: a real MLflow server that is down at the start, in the middle or at the end, and a writer that is killed.

``pytest -m slow -s tests/exactness/test_tracking_matrix.py`` prints a row of figures for each case.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from figure_writer import figures
from mlflow_server import Server

from elf_platform.config import TrackingConfig
from elf_platform.tracking import RunHandle, finish, load_handle, open_run
from elf_platform.tracking.journal import METRICS_FILE, Cursor, read_lines

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STEPS = 220
HEAD = ("case", "points written", "points in store", "duplicates", "end state", "attempts", "slowest log call (ms)")
ROW = "| {:<38} | {:>14} | {:>15} | {:>10} | {:<9} | {:>8} | {:>21} |"
GENEROUS_S = 1.0  # of one call to the tracker; it is milliseconds, but two cores are shared with the server and its start


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    sys.stdout.write(f"\n{ROW.format(*HEAD)}\n|{' --- |' * len(HEAD)}\n")
    yield server
    server.kill()


@dataclass
class Scene:
    """One run folder, its writer process and the driver's calls."""

    folder: Path
    server: Server
    writers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def open(self) -> RunHandle:
        config = TrackingConfig(uri=self.server.uri, experiment=self.folder.name)
        params = {"width": "8", "depth": "2"}
        return open_run(config, storage=self.folder, run_folder=self.folder, run_name="r", params=params, tags={"recipe": "tiny"})

    def write(self, first: int, last: int, *gates: int, every: int = 1) -> None:
        command = [sys.executable, str(ROOT / "tests/support/figure_writer.py"), str(self.folder), *map(str, (first, last, every, *gates))]
        self.writers.append(subprocess.Popen(command, env=environment()))

    def until_written(self, step: int) -> None:
        self.until(lambda: any(line.get("step", -1) >= step for _, line in read_lines(self.folder / METRICS_FILE)), "logged")

    def until_sent(self, step: int) -> None:
        """Everything up to the gate that the writer waits at."""
        self.until_written(step)
        self.until(lambda: (self.folder / METRICS_FILE).stat().st_size == Cursor.read(self.folder).metrics, "sent")

    def until(self, holds, what: str) -> None:  # type: ignore[no-untyped-def]
        deadline = time.monotonic() + 600
        while not holds():
            assert self.writers[-1].poll() in (None, 0), "the writer died"
            assert time.monotonic() < deadline, f"not {what} in time"
            time.sleep(0.02)

    def pass_gate(self, step: int) -> None:
        (self.folder / f"gate-{step}").touch()

    def track(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "jobs/track.py"), *words]
        return subprocess.run(command, env=environment(), cwd=self.folder, capture_output=True, text=True, timeout=600)

    def check(self, case: str, end: str, attempts: int) -> None:
        """Every point once and with its value, one run, its end state, its attempts; the row of the table."""
        from mlflow.tracking import MlflowClient

        written = {(name, step): value for step in self.steps() for name, value in figures(step).items()}
        kept = load_handle(self.folder)
        assert kept is not None
        client = MlflowClient(self.server.uri)
        run = client.get_run(kept.run_id)
        stored = {(point.key, point.step): point.value for point in self.points(client, kept.run_id)}
        repeated = Counter((point.key, point.step) for point in self.points(client, kept.run_id))
        slowest = json.loads((self.folder / "writer.json").read_text())["slowest"]
        duplicates = sum(count - 1 for count in repeated.values())
        status, tagged = run.info.status, run.data.tags.get("attempts", "none")
        sys.stdout.write(ROW.format(case, len(written), len(stored), duplicates, status, tagged, f"{1000 * slowest:.1f}") + "\n")
        assert stored == written
        assert duplicates == 0
        assert (status, tagged) == (end, str(attempts))
        assert sum(name.startswith("attempt.") for name in run.data.tags) == attempts
        assert run.data.params == {"width": "8", "depth": "2"} and run.data.tags["recipe"] == "tiny"
        assert [file.path for file in client.list_artifacts(kept.run_id, "texts/samples")] == ["texts/samples/0-00000120.txt"]
        assert len(client.search_runs([kept.experiment_id])) == 1
        assert slowest < GENEROUS_S

    def steps(self) -> set[int]:
        return {line["step"] for _, line in read_lines(self.folder / METRICS_FILE)}

    @staticmethod
    def points(client, run_id: str):  # type: ignore[no-untyped-def]
        names = client.get_run(run_id).data.metrics
        return [point for name in names for point in client.get_metric_history(run_id, name)]


@pytest.fixture
def scene(server: Server, tmp_path: Path) -> Iterator[Scene]:
    folder = tmp_path / tmp_path.name
    folder.mkdir()
    scene = Scene(folder, server)
    yield scene
    for writer in scene.writers:
        writer.kill()
        writer.wait()


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT / "model")])}


def test_down_at_the_start(scene: Scene) -> None:
    scene.server.kill()
    handle = scene.open()
    assert handle.pending
    scene.write(0, STEPS, 140)
    scene.until_written(139)
    scene.server.start()
    scene.until_sent(139)  # by the writer, which is still there
    scene.pass_gate(140)
    assert scene.writers[0].wait(300) == 0
    assert finish(handle, scene.folder, "FINISHED")
    assert set(scene.steps()) == set(range(STEPS))
    scene.check("down at the start, back later", "FINISHED", attempts=1)


def test_killed_in_the_middle(scene: Scene) -> None:
    scene.server.start()
    handle = scene.open()
    assert not handle.pending
    scene.write(0, STEPS, 60, 180)
    scene.until_sent(59)
    scene.pass_gate(60)
    scene.until_written(100)
    scene.server.kill()  # while figures are on their way
    scene.until_written(179)
    scene.server.start()
    scene.until_sent(179)
    scene.pass_gate(180)
    assert scene.writers[0].wait(300) == 0
    assert finish(handle, scene.folder, "FINISHED")
    scene.check("killed in the middle, back later", "FINISHED", attempts=1)


def test_killed_before_the_end_and_flushed_later(scene: Scene) -> None:
    scene.server.start()
    handle = scene.open()
    scene.write(0, STEPS, 100)
    scene.until_sent(99)
    scene.server.kill()
    scene.pass_gate(100)
    assert scene.writers[0].wait(300) == 0
    assert finish(handle, scene.folder, "FAILED") is False
    before = scene.track("status", str(scene.folder))
    assert "FAILED, not sent yet" in before.stdout and " points" in before.stdout, before.stdout + before.stderr
    scene.server.start()
    flushed = scene.track("flush", str(scene.folder), "--tracking.uri", scene.server.uri)
    assert flushed.returncode == 0 and "everything is in" in flushed.stdout, flushed.stderr
    again = scene.track("flush", str(scene.folder), "--tracking.uri", scene.server.uri)
    assert again.returncode == 0  # a second time changes nothing, the end state included
    scene.check("killed before the end, flushed later", "FAILED", attempts=1)


def test_writer_killed_and_restarted_from_an_earlier_step(scene: Scene) -> None:
    scene.server.start()
    handle = scene.open()
    scene.write(0, STEPS, 60, 170, every=2)
    scene.until_sent(58)
    behind = Cursor.read(scene.folder)
    scene.pass_gate(60)
    scene.until_written(140)
    scene.writers[0].kill()
    scene.writers[0].wait()
    behind.save(scene.folder)  # as if it was killed between the store's answers and the note of them
    with open(scene.folder / METRICS_FILE, "ab") as file:
        file.write(b'{"step": 142, "ti')  # and in the middle of a line
    assert finish(handle, scene.folder, "FAILED")
    again = scene.open()  # the same command
    assert again.run_id == handle.run_id
    scene.write(81, STEPS)  # from a checkpoint at 80, and logging every step
    assert scene.writers[1].wait(300) == 0
    assert finish(again, scene.folder, "KILLED")
    assert scene.steps() == set(range(0, 81, 2)) | set(range(81, STEPS))
    scene.check("writer killed, restarted from earlier", "KILLED", attempts=2)
