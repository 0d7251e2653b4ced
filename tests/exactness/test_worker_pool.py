"""The worker pool itself: what goes wrong in a worker is told, and the next run has fresh processes."""

import os
import signal
from pathlib import Path

import pytest
from curves import curve
from worker_pool import STEPS, Described, WorkerFailed, WorkerPool

pytestmark = pytest.mark.slow


def test_a_failure_is_told_and_the_pool_goes_on(tmp_path: Path) -> None:
    with WorkerPool(1, tmp_path / "pool") as pool:
        with pytest.raises(WorkerFailed, match="(?s)worker 0 failed.*Traceback.*KeyError: 'unheard-of'"):
            pool.run(Described(folder=tmp_path / "wrong", process="unheard-of"))
        assert pool.processes == []
        pool.run(Described(folder=tmp_path / "right", process="autoregressive"))
        assert list(curve(tmp_path / "right", "train/loss")) == list(range(1, STEPS + 1))
        (pid,) = pool.processes
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerFailed, match="worker 0 died"):
            pool.run(Described(folder=tmp_path / "dead"))


def test_a_worker_that_gives_no_answer_is_ended(tmp_path: Path) -> None:
    with WorkerPool(1, tmp_path / "pool", timeout_s=0.01) as pool:
        with pytest.raises(WorkerFailed, match="no answer in 0.01 s"):
            pool.run(Described(folder=tmp_path / "run"))
        assert pool.processes == []
