"""Bad steps: which ones they are, and what happens to their rows.

A step is judged by its reduced loss and gradient norm, which are the same numbers on every worker, so all take the same decision without
asking. What was decided is kept by row, in ``skipped.jsonl``: a run that comes by again, after a rollback, from an earlier checkpoint
or on another number of workers, passes over the same rows even where its own sums would have come out a little different.
"""

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from elf.files import append_lines
from elf_platform.config import HealthConfig
from elf_platform.tracking.journal import read_lines

WINDOWS_FILE = "skipped.jsonl"


@dataclass(frozen=True, kw_only=True)
class Window:
    """Rows that are not trained on: those of one bad step.

    ``first_row`` is a position in the endless row sequence of ``elf.data.order.rows_of_step``: step * global batch.
    """

    step: int
    first_row: int
    rows: int
    reason: str

    @property
    def end_row(self) -> int:
        """The position after the last row."""
        return self.first_row + self.rows


class RolledBack(Exception):
    """Control flow: every worker starts again from the last checkpoint. The loop raises it, the worker catches it."""


class BadStep(ValueError):
    """A bad step that ends the run; the message is a paragraph for the user."""


class Health:
    """Judges steps, and remembers the good ones (their figures) and the bad ones (their rows).

    The figures come back from the checkpoint (``state``), where the steps that are replayed are not in them yet; the rows also from the
    run folder (``windows``), and windows are told apart by their rows. So each step is counted once, and how often the run was
    interrupted or rolled back before a step has no part in the decision on it.

    Too many bad steps: ``max_bad_steps`` windows that follow each other in the order of the rows, the new one among them, with fewer than
    ``max_bad_steps`` good steps between the first and the last. One bad step in two is too many, one in three never is; with
    max_bad_steps 1 the first one is.
    """

    def __init__(
        self, config: HealthConfig, *, global_batch: int, windows: Sequence[Window] = (), state: Mapping[str, Any] | None = None
    ) -> None:
        assert global_batch >= 1
        self.config, self.global_batch = config, global_batch
        kept = state or {"losses": [], "grad_norms": [], "windows": []}
        self._losses: deque[float] = deque(kept["losses"], maxlen=config.window)
        self._norms: deque[float] = deque(kept["grad_norms"], maxlen=config.window)
        self._windows: list[Window] = []
        for window in (*windows, *(Window(**w) for w in kept["windows"])):
            self._remember(window)

    def window_of(self, step: int) -> Window | None:
        """The recorded window that holds rows of this step, None when it is to be done."""
        first, end = step * self.global_batch, (step + 1) * self.global_batch
        return next((w for w in self._windows if w.first_row < end and first < w.end_row), None)

    def problem(self, loss: float, grad_norm: float) -> str | None:
        """Why a step with these figures is bad, in words; None for a good one. Changes nothing.

        A figure that is not finite is always bad. A spike is one above ``spike_factor`` times its median over the last ``window`` good
        steps, once max(4, window // 4) of them are there (or all, in a smaller window) and the median is above 0.
        """
        for name, value, history in (("loss", loss, self._losses), ("gradient norm", grad_norm, self._norms)):
            if not math.isfinite(value):
                return f"the {name} is {value}"
            if not self.config.spike_factor or len(history) < min(max(4, self.config.window // 4), self.config.window):
                continue
            usual = median(history)
            if usual > 0 and value > self.config.spike_factor * usual:
                return (
                    f"the {name} is {value:.6g}, {value / usual:.3g} times its median of {usual:.6g} over the last {len(history)} good "
                    f"steps, where health.spike_factor allows {self.config.spike_factor:g}"
                )
        return None

    def accept(self, loss: float, grad_norm: float) -> None:
        """Take a good step into the history."""
        assert math.isfinite(loss) and math.isfinite(grad_norm), "a step that is not finite is no good one"
        self._losses.append(loss)
        self._norms.append(grad_norm)

    def reject(self, step: int, reason: str) -> Window:
        """Remember a bad step; the window to record before going on.

        Raises BadStep when ``on_bad_step`` is stop, or when this one makes too many; nothing is remembered then, so that the same
        command stops in the same place.
        """
        assert self.window_of(step) is None, "this step was to be passed over"
        window = Window(step=step, first_row=step * self.global_batch, rows=self.global_batch, reason=reason)
        if self.config.on_bad_step == "stop":
            raise BadStep(f"{self._story(window)} The run ends there, as health.on_bad_step is stop. {_WAYS_OUT} {_PASS_OVER}")
        crowd = self._crowd(window)
        if crowd:
            raise BadStep(f"{self._story(window)} {self._too_many(crowd)} {_WAYS_OUT}")
        self._remember(window)
        return window

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as plain JSON; comes back exactly. The count of bad steps is that of the windows."""
        return {"losses": list(self._losses), "grad_norms": list(self._norms), "windows": [asdict(w) for w in self._windows]}

    def _remember(self, window: Window) -> None:
        if all(_place(window) != _place(known) for known in self._windows):
            self._windows.append(window)
            self._windows.sort(key=_place)

    def _crowd(self, new: Window) -> list[Window]:
        """``max_bad_steps`` windows in a row, ``new`` among them, with too few good steps in between; empty when there are none."""
        most = self.config.max_bad_steps
        ordered = sorted([*self._windows, new], key=_place)
        at = ordered.index(new)
        for start in range(max(0, at - most + 1), min(at, len(ordered) - most) + 1):
            crowd = ordered[start : start + most]
            if self._good_between(crowd) < most:
                return crowd
        return []

    def _good_between(self, crowd: Sequence[Window]) -> int:
        """Good steps between the first window and the last, which are in the order of their rows."""
        between = crowd[-1].first_row - crowd[0].end_row - sum(w.rows for w in crowd[1:-1])
        return max(0, between) // self.global_batch

    def _story(self, window: Window) -> str:
        if self._losses:
            before = f"the last good step had loss {self._losses[-1]:.6g} and gradient norm {self._norms[-1]:.6g}"
        else:
            before = "no step before it was good"
        return (
            f"Step {window.step} (rows {window.first_row} to {window.end_row - 1} in the order of training) is bad: {window.reason}; "
            f"{before}."
        )

    def _too_many(self, crowd: Sequence[Window]) -> str:
        most = len(crowd)
        if most == 1:
            return "The run ends there, as health.max_bad_steps is 1."
        return (
            f"With it, {most} steps were bad from step {crowd[0].step} to {crowd[-1].step} and only {self._good_between(crowd)} between "
            f"them good; health.max_bad_steps {most} asks for at least {most}, so the run ends there."
        )


_WAYS_OUT = (
    "A finite loss near those before it was expected. Often the learning rate is too high or rises too fast: lower optim.lr, raise "
    "optim.warmup_steps or lower optim.clip_norm; with train.precision bf16 try fp32; train.record_rows shows which texts a step read. "
    "Each of these settings but train.record_rows makes a new run."
)
_PASS_OVER = "To pass over such steps instead, start one with health.on_bad_step skip or rollback."


def _place(window: Window) -> tuple[int, int]:
    return window.first_row, window.rows


def read_windows(run_folder: Path) -> list[Window]:
    """The recorded windows of a run in the order of their rows; a torn last line, left by a killed worker, is no window.

    Raises ValueError when another line cannot be read: without it the run would not be the one that was recorded.
    """
    path = run_folder / WINDOWS_FILE
    windows: dict[tuple[int, int], Window] = {}
    for number, (_, line) in enumerate(read_lines(path), start=1):
        try:
            window = Window(step=line["step"], first_row=line["first_row"], rows=line["rows"], reason=line["reason"])
        except KeyError as error:
            raise ValueError(
                f"line {number} of {path} is no record of skipped rows (no {error}); the run cannot tell any more which rows it passed "
                "over. Put the file back from a copy, or remove that line if those rows may be trained on"
            ) from error
        windows.setdefault(_place(window), window)
    return sorted(windows.values(), key=_place)


def record_window(run_folder: Path, window: Window) -> None:
    """Append a window and force it to disk; one whose rows are recorded already stays as it is. One worker calls this.

    Raises OSError when it cannot be written.
    """
    if any(_place(window) == _place(known) for known in read_windows(run_folder)):
        return
    append_lines(run_folder / WINDOWS_FILE, [json.dumps(asdict(window))], durable=True)
