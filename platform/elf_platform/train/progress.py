"""Progress of a training run on the driver's terminal, read from the run folder while the workers train."""

import json
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from elf_platform.terminal import Terminal, Words
from elf_platform.tracking import Event
from elf_platform.tracking.journal import EVENTS_FILE, METRICS_FILE, event_of

PLAIN_EVERY_S = 15.0
"""Seconds between lines where the output is no terminal."""


class Progress:
    """A bar with loss, speed and time left on a terminal, a line now and then elsewhere, and a line for each event on both."""

    def __init__(self, run_folder: Path, *, total: int, title: str, first: int = 0) -> None:
        """first: the step of the checkpoint that the run goes on from."""
        self.total, self.title, self.first = total, title, first
        self._points, self._events = _Tail(run_folder / METRICS_FILE), _Tail(run_folder / EVENTS_FILE)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._bar: Bar | None = None
        self._printed = time.monotonic()
        self._last: dict[str, float] = {}
        self._valid = ""  # the last validation, and its step
        self._unsaid = False  # whether figures came since the last line

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            columns = (
                Words("{task.description}"), BarColumn(), MofNCompleteColumn(), Words("{task.fields[figures]}"),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=Terminal(stderr=True))
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.first, figures=self._starting)
            self._bar.start()
        else:
            self.say(self._starting)
        self._thread.start()
        return self

    @property
    def _starting(self) -> str:
        return "starting workers" + (f", to go on from step {self.first}" if self.first else "")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._poll()
        if self._unsaid and kind is None and not self._bar:
            self._show(int(self._last["step"]), True)
        if self._bar:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Prints one line; above the bar where there is one."""
        console = self._bar.console if self._bar else Terminal(stderr=True)
        console.print(f"{self.title}: {text}")

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            self._poll()

    def _poll(self) -> None:
        """What is new in both files, in the order in which it happened."""
        news: list[tuple[float, int, Event | dict[str, float]]] = []
        for line in self._events.new():
            event = event_of(line)
            if event is not None:
                news.append((event.time, 0, event))
        for line in self._points.new():
            step, when, metrics = line.get("step"), line.get("time"), line.get("metrics")
            if isinstance(step, int) and isinstance(when, int | float) and isinstance(metrics, dict):
                news.append((float(when), 1, {**metrics, "step": step}))
        for _, _, item in sorted(news, key=lambda found: found[:2]):
            if isinstance(item, Event):
                self._show_event(item)
            else:
                self._last.update(item)
                if "valid/loss" in item:
                    self._valid = f"validation {item['valid/loss']:.4g} (step {item['step']:g})"
                self._unsaid = True
                self._show(int(item["step"]), False)

    def _show_event(self, event: Event) -> None:
        if event.kind == "attempt":  # the bar goes back to where the workers go on; the old speed is no guide to theirs
            self._last, self._valid, self._unsaid = {}, "", False
            if self._bar:
                self._bar.reset(self._task, completed=event.step, figures="starting workers")
        self.say(f"step {event.step}, {event.kind.replace('_', ' ')}: {' '.join(event.text.split())}")

    def _show(self, step: int, final: bool) -> None:
        parts = [f"loss {self._last['train/loss']:.4g}"] if "train/loss" in self._last else []
        if self._valid:
            parts.append(self._valid)
        if "perf/tokens_per_second" in self._last:
            parts.append(f"{self._last['perf/tokens_per_second']:,.0f} tokens/s")
        if self._bar:
            self._bar.update(self._task, completed=step, figures=", ".join(parts))
        elif final or time.monotonic() - self._printed >= PLAIN_EVERY_S:
            left = ""
            if self._last.get("perf/step_seconds") and step < self.total:
                left = f", {self._last['perf/step_seconds'] * (self.total - step):.0f} s left"
            self.say(f"step {step} of {self.total}, {', '.join(parts)}{left}")
            self._printed, self._valid, self._unsaid = time.monotonic(), "", False  # a validation is said once


class _Tail:
    """The JSON lines that are added to a file from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.is_file() else 0

    def new(self) -> list[dict[str, Any]]:
        """Whole lines since the last call; lines that are no JSON object are left out."""
        if not self._path.is_file():
            return []
        size = self._path.stat().st_size
        self._offset = min(self._offset, size)  # a new writer cuts off what a killed one left unfinished
        with self._path.open("rb") as handle:
            handle.seek(self._offset)
            data = handle.read()
        whole = data[: data.rfind(b"\n") + 1]  # the last line may still be being written
        self._offset += len(whole)
        lines = []
        for raw in whole.splitlines():
            try:
                line = json.loads(raw)
            except ValueError:
                continue
            if isinstance(line, dict):
                lines.append(line)
        return lines
