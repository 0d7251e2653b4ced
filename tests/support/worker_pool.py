"""Worker processes that train one small run after another, so that a run costs what its steps cost and not what its imports do."""

import contextlib
import dataclasses
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("pool_worker.py")


STEPS = 20
EACH_STEP = {"steps": STEPS, "log_every": 1, "valid_every": 10, "checkpoint_every": STEPS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Described:
    """One run of ``small_training`` in a run folder; the folder's newest checkpoint is resumed."""

    folder: Path
    process: str = "elf"
    optimiser: str = "muon"
    kind: str = "plain"
    zero: int = 0
    dropout: float = 0.0
    stop_after: int = 0  # a planned stop with a checkpoint after this many steps of the run; 0 for none
    train: dict[str, Any] = dataclasses.field(default_factory=dict)  # of TrainConfig, over EACH_STEP


class WorkerFailed(Exception):
    """A worker raised, died or took too long; the message holds its traceback or the end of its stderr."""


class WorkerPool:
    """``world`` gloo processes, started at the first run and again after a failure. To be used as a context manager."""

    def __init__(self, world: int, folder: Path, *, timeout_s: float = 120.0) -> None:
        self.world, self.folder, self.timeout_s = world, folder, timeout_s
        self._workers: list[subprocess.Popen[bytes]] = []
        self._starts = 0

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    @property
    def processes(self) -> list[int]:
        """Process ids of the running workers, by rank."""
        return [worker.pid for worker in self._workers]

    def run(self, described: Described) -> dict[str, Any]:
        """Train as described in all processes; the main worker's answer. WorkerFailed when one of them does not finish."""
        if not self._workers:
            self._start()
        values = dataclasses.asdict(described) | {"train": EACH_STEP | described.train}
        line = json.dumps(values, default=str).encode() + b"\n"
        try:
            for worker in self._workers:
                assert worker.stdin is not None
                with contextlib.suppress(BrokenPipeError):  # a dead one has its stdout closed too, which is found below
                    worker.stdin.write(line)
                    worker.stdin.flush()
            return self._answers()[0]
        except BaseException:
            self.end()  # the others may wait for the one that failed, and gloo cannot be mended
            raise

    def end(self) -> None:
        """End the processes, each by its own id."""
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.communicate()
        self._workers = []

    def _start(self) -> None:
        self._starts += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(str(ROOT / folder) for folder in ("platform", "model", "tests/support"))
        env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        for rank in range(self.world):
            command = [sys.executable, str(PROGRAM), str(rank), str(self.world), str(self.folder / f"rendezvous-{self._starts}")]
            with self._stderr(rank).open("wb") as stderr:
                self._workers.append(
                    subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
                )

    def _stderr(self, rank: int) -> Path:
        return self.folder / f"stderr-{self._starts}-{rank}.txt"

    def _answers(self) -> list[dict[str, Any]]:
        """One line of every worker; the first failure ends the wait."""
        answers: dict[int, dict[str, Any]] = {}
        deadline = time.monotonic() + self.timeout_s
        waiting = {worker.stdout: rank for rank, worker in enumerate(self._workers) if worker.stdout is not None}
        while waiting:
            ready, _, _ = select.select(list(waiting), [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise WorkerFailed(f"workers {sorted(waiting.values())} gave no answer in {self.timeout_s:g} s\n{self._said()}")
            for pipe in ready:
                rank, line = waiting.pop(pipe), pipe.readline()
                if not line:
                    raise WorkerFailed(f"worker {rank} died\n{self._said()}")
                answers[rank] = json.loads(line)
                if "error" in answers[rank]:
                    raise WorkerFailed(f"worker {rank} failed\n{answers[rank]['error']}{self._said()}")
        return [answers[rank] for rank in range(self.world)]

    def _said(self) -> str:
        """The end of every worker's stderr."""
        parts = []
        for rank in range(self.world):
            with contextlib.suppress(FileNotFoundError):
                parts.append(f"stderr of worker {rank}:\n{self._stderr(rank).read_text(errors='replace')[-3000:]}")
        return "\n".join(parts)
