"""Batches of a worker, read ahead of the step that needs them. Which rows they are is a pure function of seed and step."""

import queue
import threading
import time
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from elf.batch import Batch
from elf.data.order import Int64, rows_of_step


class Rows(Protocol):
    """Random access to packed rows; ``elf_platform.data.reader.RowReader`` is one."""

    def __len__(self) -> int: ...

    def read(self, rows: Int64) -> Batch:
        """The rows at these indices, on the CPU."""
        ...


def share_of(total: int, rank: int, world_size: int) -> Int64:
    """Global row indices of one worker: contiguous, and equal shares or, where they do not divide, shares that differ by one row."""
    return np.arange(rank * total // world_size, (rank + 1) * total // world_size, dtype=np.int64)


def passes(total: int, world_size: int, micro_batch: int) -> int:
    """Forward passes per step, the same on every worker, so that each has at most ``micro_batch`` rows (0: one pass)
    and at least one; where uneven shares make both impossible, a row more."""
    most, least = -(-total // world_size), total // world_size
    return min(-(-most // (micro_batch or most)), least)


class Feed:
    """Iterates over (step, this worker's rows of it), reading ``ahead`` steps in a background thread.

    ``waited`` adds up the seconds that the training loop spent waiting for data.
    """

    def __init__(
        self, rows: Rows, *, seed: int, global_batch: int, share: Int64, first_step: int, last_step: int, ahead: int = 2
    ) -> None:
        self._rows, self._seed, self._global_batch, self._share = rows, seed, global_batch, share
        self._steps = range(first_step, last_step)
        self._queue: queue.Queue[tuple[int, Batch] | BaseException] = queue.Queue(maxsize=ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self.waited = 0.0

    def rows_of(self, step: int) -> Int64:
        """Data-set rows that this worker trains on in a step."""
        return rows_of_step(step, self._share, global_batch=self._global_batch, rows=len(self._rows), seed=self._seed)

    def _run(self) -> None:
        try:
            for step in self._steps:
                self._put((step, self._rows.read(self.rows_of(step))))
                if self._stop.is_set():
                    return
        except BaseException as error:  # handed to the training loop: a dead thread must not look like a slow one
            self._put(error)

    def _put(self, item: tuple[int, Batch] | BaseException) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        self._thread.start()
        try:
            for _ in self._steps:
                started = time.perf_counter()
                item = self._queue.get()
                self.waited += time.perf_counter() - started
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self._stop.set()


def micro_batches(batch: Batch, rows: Int64, count: int) -> Iterator[tuple[Batch, Int64]]:
    """``count`` consecutive parts of nearly equal size, with the global row indices that their draws belong to."""
    for i in range(count):
        start, stop = i * len(rows) // count, (i + 1) * len(rows) // count
        part = {name: getattr(batch, name)[start:stop] for name in Batch.__dataclass_fields__}
        yield Batch(**part), rows[start:stop]
