"""The Ray cluster of a run: the one it was started in, or a private one on this machine, started quietly and taken away again."""

import contextlib
import fcntl
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import elf
import elf_platform
from elf_platform.capacity import Cluster, Growth, Node, growth_of
from elf_platform.shadows import check_folder, check_interpreter
from elf_platform.stops import Terminated, raise_on_sigterm

_TEMP_PREFIX = "elf-ray-"
_RANDOM = "[a-z0-9_]" * 8
"""What `tempfile` puts behind a prefix."""
_STAND_BACK = 10
"""Nice value: a tenth of the weight of a process that trains, on a busy core."""
_WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
_RAYLET = "RAY_RAYLET_PID"
_MARK = "ELF_CLUSTER"
"""Variable that names a private cluster's folder to all of its processes. Their numbers do not: another container has the same ones."""
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
_PATIENCE = 5.0
"""Seconds that workers of a cluster which has ended may take to end."""


@contextlib.contextmanager
def connect() -> Iterator[Cluster]:
    """Joins the cluster named by RAY_ADDRESS (a submitted job has it set), else starts a private one that ends with the block.

    A process that is connected already keeps its connection.

    Raises ConnectionError with the way out when the named cluster cannot be joined, ValueError for a working directory that its workers
    would import the wrong modules from.
    """
    import ray

    if ray.is_initialized():
        yield cluster_resources()
        return
    check_interpreter(sys.executable)
    check_folder(Path.cwd())
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

    with ray_temp() as temp, _variables({_WATCHER: os.environ.get(_WATCHER, "0"), _MARK: str(temp)}):
        _share_python_path()
        try:
            _start(cpus, temp)
            _yield_to_training()
            yield cluster_resources(local=True)
        finally:
            try:
                ray.shutdown()
            finally:
                _end_workers(str(temp))


def _end_workers(mark: str) -> None:
    """Waits for the workers of a cluster that has ended, and kills what is left. Ray does so itself, but not always: a worker deep in a
    call into C was once seen to run on for hours after a stop on a busy machine."""
    import psutil

    workers = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            variables = process.environ()
            if variables.get(_MARK) == mark and _RAYLET in variables:
                workers.append(process)
    _, left = psutil.wait_procs(workers, timeout=_PATIENCE)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _start(cpus: int, temp: Path) -> None:
    """Twice where the first start takes too long: Ray waits 30 s for its own processes, which a busy machine may not manage from cold.

    A stop in the meantime raises what it raises elsewhere; nothing that was started is left."""
    options = {"num_cpus": cpus, "include_dashboard": False, "logging_level": "ERROR", "log_to_driver": False, "_temp_dir": str(temp)}
    for again in (True, False):
        try:
            with _whole_start():
                _init(address="local", **options)
            return
        except Exception as error:  # a start-up that takes too long is a bare Exception
            if again and "timed out" in str(error):
                continue
            raise ConnectionError(
                f"Ray did not start on this machine: {_first_line(error)}. The machine may be overloaded, or out of memory or of space in "
                f"{temp.parent}; try again when less runs on it"
            ) from error


@contextlib.contextmanager
def _whole_start() -> Iterator[None]:
    """Ends the processes that were started in the block when it does not end well."""
    import psutil
    import ray

    others = set(psutil.Process().children(recursive=True))
    try:
        yield
    except BaseException:
        try:
            ray.shutdown()
        finally:
            for process in set(psutil.Process().children(recursive=True)) - others:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        raise


def _init(**options: Any) -> None:
    """``ray.init``, in which SIGTERM raises ``Terminated`` as it does elsewhere: Ray's own handler, which it sets there, ends the process
    without a word."""
    import ray

    try:
        ray.init(**options)
    except SystemExit:
        raise Terminated from None
    finally:
        raise_on_sigterm()


@contextlib.contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    """Environment variables of this process and of those it starts in the block. A private cluster's: its mark; and no process of Ray
    Train that watches for nodes to be taken away, since this machine is the cluster, and an idle process of Ray wakes a hundred times a
    second."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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
    """The nodes of the cluster that this process is connected to, and what autoscaling may add."""
    import ray

    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = tuple(Node(cpus=each.get("CPU", 0.0), gpus=each.get("GPU", 0.0)) for each in resources)
    return Cluster(nodes=nodes, local=local, growth=Growth() if local else _growth())


def _growth() -> Growth:
    """The limits of this cluster's autoscaler, which Ray tells nobody but the process on the head that scales: read where that one reads
    them. Nothing where it runs elsewhere (Kubernetes, or a program that is not on the head)."""
    import psutil
    import ray
    import yaml

    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    ours = re.compile(rf"--gcs-address={'.*' if host in _LOOPBACK else re.escape(host)}:{port}")
    option = "--autoscaling-config="
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError, ValueError, yaml.YAMLError):
            words = process.cmdline()
            given = next((word.removeprefix(option) for word in words if word.startswith(option)), "")
            if given and any(map(ours.fullmatch, words)):
                return growth_of(yaml.safe_load(Path(given).expanduser().read_text("utf-8")))
    return Growth()


@contextlib.contextmanager
def ray_temp() -> Iterator[Path]:
    """A short-named folder for a private cluster, removed afterwards; folders that killed processes left behind go as well.

    Short, because Ray keeps Unix sockets in it, whose paths are limited to about 100 bytes. Its owner holds a lock on it, which the system
    lets go of when the owner dies: containers that share /tmp do not see each other's processes. What cannot be locked stays.
    """
    root = Path("/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir())
    for left in root.glob(f"{_TEMP_PREFIX}{_RANDOM}"):
        with contextlib.suppress(OSError), _locked(left):
            shutil.rmtree(left, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        folder = _own_folder(root, stack)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def _own_folder(root: Path, stack: contextlib.ExitStack) -> Path:
    """A new folder, locked until ``stack`` ends. Another process may take a folder that is not locked yet for a leftover: make another."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_TEMP_PREFIX, dir=root))
        try:
            stack.enter_context(_locked(folder))
            return folder
        except (BlockingIOError, FileNotFoundError):
            continue
        except OSError:  # a file system without locks: nobody can lock the folder, so nobody removes it
            return folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a folder's lock. Raises BlockingIOError when another process has it, FileNotFoundError when the folder went meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.stat(folder)):
            raise FileNotFoundError(folder)
        yield
    finally:
        os.close(descriptor)


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


def this_machine(gpus: int) -> Cluster:
    """What a private cluster would have to offer, without starting it."""
    return Cluster(nodes=(Node(cpus=float(usable_cpus()), gpus=float(gpus)),), local=True)


def _join(address: str) -> None:
    if address.startswith(("http://", "https://")):
        raise ConnectionError(
            f"RAY_ADDRESS is {address}, a dashboard's address, which `ray job submit` uses but a program cannot join; submit this "
            "command as a job, or unset RAY_ADDRESS to run on this machine alone"
        )
    try:
        _init(logging_level="WARNING", log_to_driver=False)
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
