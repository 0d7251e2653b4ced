"""Progress of a training run on the driver's terminal, read from the run folder while the workers train."""

import json
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

PLAIN_EVERY_S = 15.0
"""Seconds between lines where the output is no terminal."""


class Progress:
    """A bar with loss, speed and time left on a terminal, a line now and then elsewhere."""

    def __init__(self, run_folder: Path, *, total: int, title: str) -> None:
        self.path, self.total, self.title = run_folder / "metrics.jsonl", total, title
        self._offset = self.path.stat().st_size if self.path.is_file() else 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._terminal = sys.stderr.isatty()
        self._bar: Bar | None = None
        self._printed = time.monotonic()
        self._last: dict[str, float] = {}

    def __enter__(self) -> "Progress":
        if self._terminal:
            columns = (
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task(self.title, total=self.total, figures="starting workers")
            self._bar.start()
        else:
            self._line("starting workers")
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._poll(final=True)
        if self._bar:
            self._bar.stop()

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            self._poll()

    def _poll(self, final: bool = False) -> None:
        for step, metrics in self._new_points():
            self._last.update(metrics)
            self._show(step, final)
        if final and self._last and not self._terminal:
            self._show(int(self._last.get("step", self.total)), True)

    def _new_points(self) -> list[tuple[int, dict[str, Any]]]:
        if not self.path.is_file():
            return []
        with self.path.open("rb") as handle:
            handle.seek(self._offset)
            data = handle.read()
        whole = data[: data.rfind(b"\n") + 1]  # the last line may still be being written
        self._offset += len(whole)
        points = []
        for line in whole.splitlines():
            try:
                point = json.loads(line)
                points.append((int(point["step"]), {**point["metrics"], "step": point["step"]}))
            except (ValueError, KeyError, TypeError):
                continue
        return points

    def _show(self, step: int, final: bool) -> None:
        parts = [f"loss {self._last['train/loss']:.4g}"] if "train/loss" in self._last else []
        if "valid/loss" in self._last:
            parts.append(f"valid {self._last['valid/loss']:.4g}")
        if "perf/tokens_per_second" in self._last:
            parts.append(f"{self._last['perf/tokens_per_second']:,.0f} tokens/s")
        if self._bar:
            self._bar.update(self._task, completed=step, figures=", ".join(parts))
        elif final or time.monotonic() - self._printed >= PLAIN_EVERY_S:
            left = ""
            if self._last.get("perf/step_seconds") and step < self.total:
                left = f", {self._last['perf/step_seconds'] * (self.total - step):.0f} s left"
            self._line(f"step {step} of {self.total}, {', '.join(parts)}{left}")
            self._printed = time.monotonic()

    def _line(self, text: str) -> None:
        Console(stderr=True).print(f"{self.title}: {text}", highlight=False, soft_wrap=True)
