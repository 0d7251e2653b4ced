"""One line of progress: a live bar on a terminal, a plain line every few seconds elsewhere, nothing when switched off."""

import sys
import time
from types import TracebackType
from typing import TextIO

from rich.progress import BarColumn, Progress, TimeRemainingColumn

from elf_platform.terminal import Terminal, Words

_EVERY = 5.0  # seconds between plain lines


class ProgressLine:
    """Progress of ``total`` units of work in a named phase. ``unit`` names what the rate counts, such as "MB", shown with ``digits``."""

    def __init__(
        self, phase: str, total: float, *, unit: str = "MB", digits: int = 1, on: bool = True, out: TextIO | None = None
    ) -> None:
        self.phase, self.total, self.unit, self.digits, self.on = phase, max(total, 1e-9), unit, digits, on
        self.done = 0.0
        self._began = self._printed = time.monotonic()
        self._console = console = Terminal(out or sys.stderr)
        self._bar: Progress | None = None
        if on and console.is_terminal:
            columns = (Words("{task.description}"), BarColumn(), Words("{task.fields[text]}"), TimeRemainingColumn())
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task(phase, total=self.total, text="")

    def __enter__(self) -> "ProgressLine":
        if self._bar:
            self._bar.start()
        return self

    def advance(self, amount: float) -> None:
        self.done += amount
        if self._bar:
            self._bar.update(self._task, completed=self.done, text=self._text())
        elif self.on and time.monotonic() - self._printed >= _EVERY:
            self._printed = time.monotonic()
            remaining = (self._printed - self._began) * (self.total - self.done) / max(self.done, 1e-9)
            self._print(f"{self._text()}, about {remaining:.0f} s left")

    def reach(self, done: int, total: int) -> None:
        """``done`` of ``total`` units are done, for work that tells its own length as it goes."""
        self.total = max(total, 1e-9)
        if self._bar:
            self._bar.update(self._task, total=self.total)
        self.advance(done - self.done)

    def _text(self) -> str:
        rate = self.done / max(time.monotonic() - self._began, 1e-9)
        return f"{self.done:.{self.digits}f} of {self.total:.{self.digits}f} {self.unit}, {rate:.1f} {self.unit}/s"

    def _print(self, text: str) -> None:
        self._console.print(f"{self.phase}: {text}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()
        elif self.on and kind is None:
            self._print(f"{self._text()}, done in {time.monotonic() - self._began:.1f} s")
