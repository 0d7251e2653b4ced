"""The Ray cluster of a run: the one it was started in, or a private one on this machine, started quietly and taken away again."""

import contextlib
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import elf
import elf_platform
from elf_platform.stops import raise_on_sigterm

_TEMP_PREFIX = "elf-ray-"
_STAND_BACK = 10
"""Nice value: a tenth of the weight of a process that trains, on a busy core."""
_WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
_RAYLET = "RAY_RAYLET_PID"
_PATIENCE = 5.0
"""Seconds that workers of a cluster which has ended may take to end."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What the cluster has to offer."""

    nodes: int
    cpus: float
    gpus: float
    local: bool
    """Started by this process for itself alone."""


@contextlib.contextmanager
def connect() -> Iterator[Cluster]:
    """Joins the cluster named by RAY_ADDRESS (a submitted job has it set), else starts a private one that ends with the block.

    A process that is connected already keeps its connection.

    Raises ConnectionError with the way out when the named cluster cannot be joined.
    """
    import ray

    if ray.is_initialized():
        yield cluster_resources()
        return
    address = os.environ.get("RAY_ADDRESS", "")
    if not address:
        with local_cluster(usable_cpus()) as cluster:
            yield cluster
        return
    _join(address)
    try:
        yield cluster_resources()
    finally:
        ray.shutdown()


@contextlib.contextmanager
def local_cluster(cpus: int) -> Iterator[Cluster]:
    """A private Ray cluster of ``cpus`` logical CPUs and this machine's GPUs, without dashboard; ends with the block.

    Raises ConnectionError when it does not start."""
    import ray

    with ray_temp() as temp, _nothing_to_drain():
        _share_python_path()
        _start(cpus, temp)
        raise_on_sigterm()
        _yield_to_training()
        raylet = _raylet_id()
        try:
            yield cluster_resources(local=True)
        finally:
            try:
                ray.shutdown()
            finally:
                if raylet:
                    _end_workers(raylet)


def _end_workers(raylet: str) -> None:
    """Waits for the workers of a raylet that has ended, and kills what is left. Ray does so itself, but not always: a worker deep in a call
    into C was once seen to run on for hours after a stop on a busy machine."""
    import psutil

    workers = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(_RAYLET) == raylet:
                workers.append(process)
    _, left = psutil.wait_procs(workers, timeout=_PATIENCE)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _raylet_id() -> str:
    """Number of the process that starts this cluster's workers, as it stands in their environment; empty where Ray does not tell."""
    import psutil

    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "/raylet/raylet" in " ".join(process.cmdline()):
                return str(process.pid)
    return ""


def _start(cpus: int, temp: Path) -> None:
    """Twice where the first start takes too long: Ray waits 30 s for its own processes, which a busy machine may not manage from cold."""
    import psutil
    import ray

    options = {"num_cpus": cpus, "include_dashboard": False, "logging_level": "ERROR", "log_to_driver": False, "_temp_dir": str(temp)}
    others = set(psutil.Process().children(recursive=True))
    for again in (True, False):
        try:
            ray.init(address="local", **options)
            return
        except Exception as error:  # a start-up that takes too long is a bare Exception
            ray.shutdown()
            for process in set(psutil.Process().children(recursive=True)) - others:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            if again and "timed out" in str(error):
                continue
            raise ConnectionError(
                f"Ray did not start on this machine: {_first_line(error)}. The machine may be overloaded, or out of memory or of space in "
                f"{temp.parent}; try again when less runs on it"
            ) from error


@contextlib.contextmanager
def _nothing_to_drain() -> Iterator[None]:
    """No process of Ray Train that watches for nodes to be taken away: this machine is the cluster, and an idle process of Ray wakes a
    hundred times a second."""
    before = os.environ.get(_WATCHER)
    os.environ.setdefault(_WATCHER, "0")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_WATCHER, None)


def _yield_to_training() -> None:
    """Ray's own processes on this machine stand back: at the ordinary priority each of their many short wakes interrupts a thread that
    trains, and the other threads of the step wait for that one (docs/exactness.md, Overhead). The raylet keeps its own, which its
    workers inherit. The process that would carry the workers' output here ends, since nobody reads it."""
    import psutil
    import ray._private.worker as ray_worker

    with contextlib.suppress(AttributeError, AssertionError, KeyError):  # Ray's own names: without them it runs on as before
        ray_worker._global_node.kill_log_monitor()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, OSError):
            words = " ".join(process.cmdline())
            worker = "default_worker.py" in words or (words.startswith("ray::") and "Agent" not in words)
            if worker or "/raylet/raylet" in words:
                continue
            for thread in process.threads():  # Linux keeps a priority for each thread
                os.setpriority(os.PRIO_PROCESS, thread.id, _STAND_BACK)


def cluster_resources(*, local: bool = False) -> Cluster:
    """Nodes, CPUs and GPUs of the cluster that this process is connected to; what autoscaling may add is not counted."""
    import ray

    total = ray.cluster_resources()
    alive = sum(1 for node in ray.nodes() if node["Alive"])
    return Cluster(nodes=alive, cpus=total.get("CPU", 0.0), gpus=total.get("GPU", 0.0), local=local)


@contextlib.contextmanager
def ray_temp() -> Iterator[Path]:
    """A short-named folder for a private cluster, removed afterwards; folders that killed processes left behind go as well.

    Short, because Ray keeps Unix sockets in it, whose paths are limited to about 100 bytes.
    """
    root = Path("/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir())
    for left in root.glob(f"{_TEMP_PREFIX}*-*"):
        owner = left.name.removeprefix(_TEMP_PREFIX).split("-")[0]
        if owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_TEMP_PREFIX}{os.getpid()}-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def native_stderr_off() -> Iterator[None]:
    """What is written to the descriptor itself is dropped, what Python writes to sys.stderr stays: Ray's C++ side warns, past all logging,
    that actors which may be restarted take their arguments from its store."""
    sys.stderr.flush()
    before, kept, null = sys.stderr, os.dup(2), os.open(os.devnull, os.O_WRONLY)
    with open(kept, "w", encoding=before.encoding, errors="replace", buffering=1) as sys.stderr:
        os.dup2(null, 2)
        os.close(null)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            sys.stderr = before


def usable_cpus() -> int:
    """CPUs that this process may use: its affinity mask, and the quota of its container (cgroup v2)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no cgroup v2, or no quota ("max")
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, math.ceil(int(quota) / int(period)))
    return count


def _join(address: str) -> None:
    import ray

    if address.startswith(("http://", "https://")):
        raise ConnectionError(
            f"RAY_ADDRESS is {address}, a dashboard's address, which `ray job submit` uses but a program cannot join; submit this "
            "command as a job, or unset RAY_ADDRESS to run on this machine alone"
        )
    try:
        ray.init(logging_level="WARNING", log_to_driver=False)
        raise_on_sigterm()
    except Exception as error:  # Ray also raises bare ones, for a cluster that is only half up
        mode = os.environ.get("RAY_AUTH_MODE", "unset")
        raise ConnectionError(
            f"cannot join the Ray cluster at {address} (RAY_ADDRESS): {_first_line(error)}. Check that it runs, and that its token is "
            f"here (RAY_AUTH_MODE is {mode}; the token comes from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token); or unset "
            "RAY_ADDRESS to run on this machine alone"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[0].rstrip(".")


def _share_python_path() -> None:
    """Workers of a private cluster inherit PYTHONPATH; absolute, because Ray Train changes the working directory."""
    roots = [str(Path(str(package.__file__)).resolve().parents[1]) for package in (elf, elf_platform)]
    inherited = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*roots, *inherited]))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
