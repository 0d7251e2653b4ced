"""jobs/sample.py on a real Ray cluster: the same bytes for any number of actors, and after actor and job were killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from sample_folders import bytes_of, fill, task_of
from small_artefact import small_artefact

from elf_platform.sampling.folder import read_samples

pytestmark = pytest.mark.slow

JOB = Path(__file__).parents[3] / "jobs" / "sample.py"
SETTINGS = "--count 60 --compute_batch 8 --steps 60 --gpu off"


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_artefact(tmp_path_factory.mktemp("artefacts") / "elf")


@pytest.fixture(scope="module")
def expected(elf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Made here, without Ray."""
    threads = torch.get_num_threads()
    folder = tmp_path_factory.mktemp("here") / "out"
    fill(task_of(elf, count=60, compute_batch=8, steps=60), folder)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    return data_of(folder)


def data_of(folder: Path) -> dict[str, bytes]:
    """Without the manifest, which holds the artefact's lineage as well."""
    return {name: content for name, content in bytes_of(folder).items() if name != "manifest.json"}


def start(artefact: Path, out: Path, *words: str) -> "subprocess.Popen[str]":
    roots = os.pathsep.join(str(JOB.parents[1] / name) for name in ("platform", "model"))
    environment = os.environ | {"PYTHONPATH": roots, "COLUMNS": "200"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, str(JOB), str(artefact), "--out", str(out), *SETTINGS.split(), *words]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_parts(job: "subprocess.Popen[str]", out: Path, count: int) -> None:
    deadline = time.monotonic() + 180
    while len(list(out.glob("records/*.json"))) < count:
        assert job.poll() is None and time.monotonic() < deadline, job.communicate()
        time.sleep(0.01)


def actors_of(job: "subprocess.Popen[str]") -> list[psutil.Process]:
    found = psutil.Process(job.pid).children(recursive=True)
    return [process for process in found if "MapWorker" in " ".join(process.cmdline())]


def test_two_actors_one_of_which_is_killed(elf: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = start(elf, out, "--actors", "2")
    wait_for_parts(job, out, 1)
    actors = actors_of(job)
    assert actors
    actors[0].send_signal(signal.SIGKILL)
    said, noise = job.communicate(timeout=900)
    assert job.returncode == 0, noise
    assert f"samples   {out}: 60, 61 network evaluations each (NFE)" in said
    assert "Traceback" not in noise and "pid=" not in noise and ".cc:" not in noise and "Warning" not in noise, noise
    assert "60 of 60 samples" in noise and "samples/s" in noise
    assert data_of(out) == expected
    assert len(read_samples(out)[1]) == 60


def test_a_killed_job_that_is_run_again_with_another_number_of_actors(elf: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = start(elf, out, "--actors", "1")
    wait_for_parts(job, out, 1)
    left = psutil.Process(job.pid).children(recursive=True)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    psutil.wait_procs(left, timeout=180)  # Ray's processes end when their job is gone
    with pytest.raises(ValueError, match="is half-written"):
        read_samples(out)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("parts/part-*.parquet")}
    again = start(elf, out, "--actors", "2")
    said, noise = again.communicate(timeout=900)
    assert again.returncode == 0, noise
    assert "of them were there" in said and kept and all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    assert data_of(out) == expected

    other = start(elf, out, "--seed", "1")
    _, refused = other.communicate(timeout=900)
    assert other.returncode == 2 and "settings.seed: 0 -> 1" in " ".join(refused.split()) and "Traceback" not in refused
    assert data_of(out) == expected
