"""jobs/pretrain.py as a user runs it, on a small model, watched from outside and killed at will."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from elf_platform.tracking.journal import read_lines
from elf_platform.train.checkpoint import latest

ROOT = Path(__file__).parents[2]
SMALL = (
    "tiny --codec table --codec.channels 16 --data.length 32 --data.tokenizer.vocab_size 400 --network.hidden 64 --network.depth 2 "
    "--network.heads 2 --network.bottleneck 16 --optim.warmup_steps 5 --train.global_batch 16 --train.log_every 10 --train.valid_rows 16 "
    "--train.valid_every 50 --train.sample_every 0 --train.record_rows --sample.count 2 --sample.steps 2 "
    "--train.judge none"
)


class Pretraining:
    """One run under ``home``; ``words`` are added to a small configuration. The same object starts it again."""

    def __init__(self, home: Path, text: Path, name: str, words: str, *, env: dict[str, str] | None = None) -> None:
        self.home, self.name, self.folder = home, name, home / "runs" / name
        self.command = [
            sys.executable, str(ROOT / "jobs/pretrain.py"), *SMALL.split(), "--data.paths", f"{text}/*.txt", "--name", name, *words.split(),
        ]
        path = os.pathsep.join(str(ROOT / folder) for folder in ("platform", "model"))
        self.env = os.environ | {"ELF_HOME": str(home), "PYTHONPATH": path, "COLUMNS": "400", "OMP_NUM_THREADS": "1"} | (env or {})
        if "RAY_ADDRESS" not in (env or {}):
            self.env.pop("RAY_ADDRESS", None)
        self.log = home / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the command; its output goes to a file."""
        self.home.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, env=self.env, stdout=log, stderr=log, cwd=self.home, start_new_session=True)

    def wait(self, seconds: float = 900.0) -> int:
        """Exit status."""
        assert self.process is not None
        return self.process.wait(seconds)

    def finish(self) -> None:
        """Run to the end, which must be a good one."""
        self.start()
        status = self.wait()
        assert status == 0, f"exit status {status}\n{self.said()[-4000:]}"

    def said(self) -> str:
        """All output so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """Lines of events.jsonl."""
        return [line for _, line in read_lines(self.folder / "events.jsonl") if not kind or line["kind"] == kind]

    def workers(self) -> list[int]:
        """Process ids of the newest attempt."""
        attempts = self.events("attempt")
        return [int(pid) for pid in re.findall(r"(\d+) on ", attempts[-1]["text"])] if attempts else []

    def step(self) -> int:
        """The step that the main worker began last, over all attempts."""
        path = self.folder / "rows/rank-00000.jsonl"
        with contextlib.suppress(OSError, ValueError, LookupError), path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            return int(json.loads(file.read().splitlines()[-1])["step"])
        return -1

    def until(self, condition: Callable[[], bool], seconds: float = 600.0) -> None:
        """Wait for something to become true while the run goes on."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process is not None and self.process.poll() is None, f"the run ended early\n{self.said()[-4000:]}"
            assert time.monotonic() < end, f"nothing happened for {seconds} s\n{self.said()[-4000:]}"
            time.sleep(0.002)

    @contextlib.contextmanager
    def held_back(self, pause: float = 0.4) -> Iterator[None]:
        """The workers stop for ``pause`` seconds after each step: something slow can happen before the steps run out, on any machine."""
        done = threading.Event()

        def hold() -> None:
            while not done.is_set():
                pids, step, end = self.workers(), self.step(), time.monotonic() + 0.2
                _signal(pids, signal.SIGCONT)
                while self.step() == step and time.monotonic() < end:  # a worker that is not training has a third of the time
                    time.sleep(0.002)
                _signal(pids, signal.SIGSTOP)
                done.wait(pause)
                _signal(pids, signal.SIGCONT)

        thread = threading.Thread(target=hold)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def saving(self) -> bool:
        """A checkpoint is being written right now."""
        return any((self.folder / "checkpoints").glob(".writing-step-*"))

    def kill_driver(self, signal_number: int = signal.SIGKILL) -> None:
        """Signal the command itself."""
        assert self.process is not None
        os.kill(self.process.pid, signal_number)

    def end(self) -> None:
        """End the command if it still runs; its cluster goes with it."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)

    def final(self) -> dict[str, str]:
        """SHA-256 of each file of weights, average and optimiser state in the newest checkpoint."""
        newest = latest(self.folder / "checkpoints")
        assert newest is not None
        marks = json.loads((newest.folder / "COMMITTED").read_text())
        return {"step": str(newest.step)} | {name: mark for name, mark in marks.items() if name.startswith("rank-")}

    def rows(self) -> dict[int, list[list[int]]]:
        """Step to the rows that each rank read for it; asserts that every attempt read the same."""
        found: dict[int, list[list[int]]] = {}
        for path in sorted((self.folder / "rows").glob("rank-*.jsonl")):
            mine: dict[int, list[int]] = {}
            for _, line in read_lines(path):
                if line:
                    assert mine.setdefault(line["step"], line["rows"]) == line["rows"], f"step {line['step']} was read twice differently"
            for step, rows in mine.items():
                found.setdefault(step, []).append(rows)
        return found


def _signal(pids: list[int], signal_number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal_number)
