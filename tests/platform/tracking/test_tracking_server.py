"""A real MLflow server that goes down in the middle of training and comes back."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from elf_platform.config import TrackingConfig
from elf_platform.tracking import finish, load_handle, open_run, start_tracker
from elf_platform.tracking.journal import METRICS_FILE, Cursor

pytestmark = pytest.mark.slow


class Server:
    """An ``mlflow server`` process on a free port, over one sqlite store, that can be ended and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        command += ["--artifacts-destination", str(self._folder / "files")]
        with open(self._folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.3)
        raise AssertionError((self._folder / "server.log").read_text()[-2000:])

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, 9)  # its own session: the server and the processes it started, nothing else
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder)
    yield server
    server.stop()


def wait_until_sent(run: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while Cursor.read(run).metrics < (run / METRICS_FILE).stat().st_size:
        assert time.monotonic() < deadline, "the points were not sent in time"
        time.sleep(0.2)


def test_a_server_that_goes_down_and_comes_back_has_every_point_once(server: Server, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = TrackingConfig(uri=server.uri, experiment="outage")
    handle = open_run(config, storage=tmp_path, run_folder=run, run_name="r", params={"width": "8"})
    assert handle.pending
    tracker = start_tracker(handle, run)
    for step in range(100):
        tracker.log(step, {"train/loss": float(step)})
    server.start()  # the run is made once it answers
    wait_until_sent(run, 90)
    server.stop()
    for step in range(100, 200):
        tracker.log(step, {"train/loss": float(step)})
    tracker.text("samples/0", "written during the outage", 150)
    time.sleep(2)
    server.start()
    wait_until_sent(run, 90)
    server.stop()
    for step in range(200, 300):
        tracker.log(step, {"train/loss": float(step)})
    tracker.close()
    (run / "report.html").write_text("<p>")
    assert finish(handle, run, "FINISHED", [run / "report.html"]) is False
    server.start()
    assert subprocess.run([sys.executable, "-m", "elf_platform.tracking", str(run)], env=_environment()).returncode == 0

    from mlflow.tracking import MlflowClient

    kept = load_handle(run)
    assert kept is not None
    client = MlflowClient(server.uri)
    found = client.get_run(kept.run_id)
    assert [(point.step, point.value) for point in client.get_metric_history(kept.run_id, "train/loss")] == [
        (step, float(step)) for step in range(300)
    ]
    assert found.info.status == "FINISHED" and found.data.params == {"width": "8"}
    assert {file.path for file in client.list_artifacts(kept.run_id)} == {"report.html", "texts"}
    assert len(client.search_runs([kept.experiment_id])) == 1


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
