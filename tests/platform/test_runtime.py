"""The private cluster: quiet, closed to others, and gone afterwards; and the cluster that a submitted job joins."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from ray_head import head_node

from elf_platform import runtime
from elf_platform.capacity import Cluster, Growth, Node
from elf_platform.environment import prepare_environment
from elf_platform.runtime import _MARK, _end_workers, _growth, _join, _locked, _start, connect, ray_temp, usable_cpus

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).with_name("ray")


def test_a_connected_process_stays_connected(ray_cluster: Cluster) -> None:
    with connect() as cluster:
        assert cluster == Cluster(nodes=(Node(cpus=2.0, gpus=ray_cluster.gpus),), local=False)
    import ray

    assert ray.is_initialized()
    assert ray_cluster.local


def test_a_dashboards_address_is_explained() -> None:
    with pytest.raises(ConnectionError, match="submit this command as a job"):
        _join("http://127.0.0.1:8265")


def test_a_cluster_that_does_not_start_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def slow(**options: object) -> None:
        raise Exception("The current node timed out during startup.\nMore.")  # as Ray does

    monkeypatch.setattr(ray, "init", slow)
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # other tests may share a cluster
    with pytest.raises(ConnectionError, match=r"Ray did not start .*: The current node timed out during startup\. .* try again"):
        _start(1, tmp_path)


def test_a_cluster_that_starts_too_slowly_is_started_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    starts: list[str] = []

    def slow_once(**options: object) -> None:
        starts.append(str(options["address"]))
        if len(starts) == 1:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", slow_once)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    _start(1, tmp_path)
    assert starts == ["local", "local"]


HOLDER = """
import os, sys, time
from elf_platform.runtime import ray_temp
with ray_temp() as folder:
    print(folder, os.getpid(), flush=True)
    time.sleep(600)
"""


def holder(*before: str) -> tuple["subprocess.Popen[str]", Path, int]:
    """A process that has a folder, the folder, and the process's number as it sees it itself."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("platform", "model"))}
    process = subprocess.Popen([*before, sys.executable, "-c", HOLDER], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    folder, pid = process.stdout.readline().split()
    return process, Path(folder), int(pid)


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_a_folder_goes_with_its_owner_and_no_sooner() -> None:
    process, folder, _ = holder()
    try:
        with ray_temp() as own:
            assert own.is_dir() and len(str(own)) < 40
            assert folder.is_dir()
            with pytest.raises(BlockingIOError), _locked(own):
                pass
        assert not own.exists()
    finally:
        end(process)
    assert folder.is_dir(), "a killed process cannot tidy up"
    with ray_temp():
        assert not folder.exists(), "the next one does"


def test_the_folder_of_another_pid_namespace_is_left_alone() -> None:
    """Two containers that share /tmp: the owner's number means nothing here, or another process."""
    separate = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
    possible = subprocess.run([*separate, "true"], capture_output=True, check=False).returncode == 0
    process, folder, pid = holder(*separate) if possible else holder()  # elsewhere the lock alone is tried, as above
    try:
        assert not possible or pid < 10
        with ray_temp():
            assert folder.is_dir()
    finally:
        end(process)


def test_a_folder_that_a_cleaner_takes_first_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between making and locking a folder another process may take it for a leftover, and remove it."""
    make, made = tempfile.mkdtemp, []

    def mkdtemp(**options: str) -> str:
        folder = make(**options)
        made.append(Path(folder))
        if len(made) == 1:
            Path(folder).rmdir()
        if len(made) == 2:
            stack.enter_context(_locked(Path(folder)))
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    with contextlib.ExitStack() as stack, ray_temp() as folder:
        assert folder == made[2] and folder.is_dir()
    made[1].rmdir()


def test_the_limits_of_autoscaling_are_read_where_the_autoscaler_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    config = {"max_workers": 3, "head_node_type": "h", "available_node_types": {
        "h": {"resources": {"CPU": 4}}, "gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 8}, "off": {"max_workers": 0},
    }}  # fmt: skip
    (tmp_path / "ours.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (tmp_path / "another.yaml").write_text(yaml.safe_dump(config | {"max_workers": 99}))
    monitors = [
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", f"--gcs-address={address}", f"--autoscaling-config={path}"])
        for address, path in (("10.7.0.9:6401", tmp_path / "another.yaml"), ("10.7.0.1:6401", tmp_path / "ours.yaml"))
    ]
    try:
        monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.7.0.1:6401"))
        assert _growth() == Growth(head=(Node(cpus=4),), kinds=(Node(cpus=8, gpus=1, count=8),), machines=3)
        monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.7.0.1:6402"))
        assert _growth() == Growth()
    finally:
        for monitor in monitors:
            end(monitor)


def test_usable_cpus() -> None:
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)


def environment_after(env: dict[str, str], home: Path, before: str = "") -> dict[str, str]:
    """RAY_AUTH_* in a fresh process after importing elf_platform."""
    code = f"{before}\nimport os, elf_platform\nprint(*[f'{{k}}={{v}}' for k, v in os.environ.items() if k.startswith('RAY_AUTH')])"
    clean = {"PYTHONPATH": str(ROOT / "platform"), "PATH": "/usr/bin:/bin", "HOME": str(home)} | env
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return dict(item.split("=", 1) for item in done.stdout.split())


def test_authentication_is_explicit(tmp_path: Path) -> None:
    own = environment_after({}, tmp_path)
    assert own["RAY_AUTH_MODE"] == "token" and len(own["RAY_AUTH_TOKEN"]) == 64
    assert environment_after({}, tmp_path)["RAY_AUTH_TOKEN"] != own["RAY_AUTH_TOKEN"]
    assert environment_after({"RAY_AUTH_MODE": "disabled"}, tmp_path) == {"RAY_AUTH_MODE": "disabled"}
    # A cluster to join: only with a token at hand.
    join = {"RAY_ADDRESS": "10.0.0.1:6379"}
    assert environment_after(join, tmp_path) == {}
    assert environment_after(join | {"RAY_AUTH_TOKEN": "t"}, tmp_path) == {"RAY_AUTH_TOKEN": "t", "RAY_AUTH_MODE": "token"}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    assert environment_after(join, tmp_path) == {"RAY_AUTH_MODE": "token"}
    # Ray has read the mode already: changing it now would only make the two disagree.
    assert environment_after({}, tmp_path, before="import ray") == {}


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "0")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    prepare_environment()
    assert os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] == "0"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


PRIVATE = """
import os, time

from elf_platform.runtime import connect
with connect() as cluster:
    import ray
    @ray.remote
    def where():
        import elf, elf_platform.train.loop
        return elf.__file__
    assert cluster.local and cluster.cpus >= 1, cluster
    print(ray.get(where.remote()))
    print(ray._private.worker._global_node.get_session_dir_path())
"""


@pytest.mark.slow
def test_a_private_cluster_leaves_nothing_behind(tmp_path: Path) -> None:
    home, cwd = tmp_path / "home", tmp_path / "cwd"
    home.mkdir()
    cwd.mkdir()
    # Relative entries, as in `PYTHONPATH=platform:model`, must hold for workers that change their folder.
    relative = os.pathsep.join(os.path.relpath(ROOT / part, cwd) for part in ("platform", "model"))
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"HOME": str(home), "PYTHONPATH": relative}
    done = subprocess.run([sys.executable, "-c", PRIVATE], env=clean, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    imported, session = done.stdout.split()
    assert Path(imported) == ROOT / "model" / "elf" / "__init__.py"
    assert session.startswith("/tmp/elf-ray-") and not Path(session).exists()
    assert not (home / ".ray").exists()
    assert done.stderr == ""


def test_workers_that_outlive_their_cluster_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of Ray that never came back from a regular expression once ran on for hours after its cluster and its driver were gone."""
    monkeypatch.setattr(runtime, "_PATIENCE", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
    # The second is of a cluster in another container, where the raylet happens to have the same number; the third is no worker of Ray.
    marks = ({"RAY_RAYLET_PID": "57", _MARK: "/this"}, {"RAY_RAYLET_PID": "57", _MARK: "/another"}, {_MARK: "/this"})
    workers = [
        subprocess.Popen([sys.executable, "-c", deaf], env=os.environ | mark, stdout=subprocess.PIPE, text=True) for mark in marks
    ]
    try:
        for worker in workers:
            assert worker.stdout and worker.stdout.readline() == "ready\n"
        _end_workers("/this")
        assert workers[0].wait(10) == -signal.SIGKILL and workers[1].poll() is workers[2].poll() is None
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


NAMED = """
import psutil

from elf_platform.runtime import _MARK, _RAYLET, connect
with connect() as cluster:
    import os, ray
    pid = ray.get(ray.remote(lambda: os.getpid()).remote())
    variables = psutil.Process(pid).environ()
    assert _RAYLET in variables and variables[_MARK] == os.environ[_MARK], variables
"""


@pytest.mark.slow
def test_a_workers_environment_names_its_cluster(tmp_path: Path) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    clean["PYTHONPATH"] = os.pathsep.join(str(ROOT / part) for part in ("platform", "model"))
    done = subprocess.run([sys.executable, "-c", NAMED], env=clean, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


JOB = """
import elf

from elf_platform.runtime import connect
with connect() as cluster:
    import ray
    @ray.remote
    def where():
        import elf_platform
        return elf_platform.__file__
    print("driver", elf.__file__)
    print("worker", ray.get(where.remote()))
    print("joined", not cluster.local, int(cluster.cpus))
"""


@pytest.mark.slow
def test_a_submitted_job_joins_with_the_token(tmp_path: Path) -> None:
    """The README's way: token authentication, the checkout uploaded, the packages found by runtime-env.yaml."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"RAY_USAGE_STATS_ENABLED": "0"}
    clean.pop("PYTHONPATH", None)
    (tmp_path / "home").mkdir()
    clean["HOME"] = str(tmp_path / "home")
    secret = clean | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    with ray_temp() as temp, head_node(secret, temp) as address:
        submit = [str(RAY), "job", "submit", "--address", address, "--working-dir", ".", "--runtime-env", "runtime-env.yaml"]
        refused = subprocess.run(
            [*submit, "--", "python", "-c", "1"], env=clean, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
        )
        assert refused.returncode != 0 and "token" in (refused.stdout + refused.stderr).lower()
        done = subprocess.run([*submit, "--", sys.executable, "-c", JOB], env=secret, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line.startswith(("driver ", "worker ", "joined ")))
    assert "working_dir_files" in said["driver"] and said["driver"].endswith("/model/elf/__init__.py")
    assert "working_dir_files" in said["worker"] and said["worker"].endswith("/platform/elf_platform/__init__.py")
    assert said["joined"] == "True 2"
