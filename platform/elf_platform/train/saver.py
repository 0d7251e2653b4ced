"""Saves that overlap training: a snapshot in host memory, written and committed by a thread while the next steps run.

Each rank writes its own slices and says so with a small file; the main rank's thread waits for all of them and commits. No collective
operations: those belong to the training thread. At most one save is in the making; the next one waits for it.
"""

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elf.files import TEMPORARY, write_text
from elf.optim import ParamSlice
from elf_platform.train.checkpoint import Piece, Retention, commit, pieces_of, prune, write_rank_file, writing_folder


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Who saves where."""

    root: Path
    token: str  # of this attempt, the same on all its ranks
    rank: int
    writers: int  # ranks that hold slices of their own: the first ones; all state is theirs together
    keep: Retention
    patience_s: float  # seconds that the main rank waits for the others' files


class Saver:
    """One worker's part in saving. ``on_problem(step, message)`` is called on the main rank's thread when a save failed."""

    def __init__(self, saving: Saving, *, on_problem: Callable[[int, str], None]) -> None:
        self.saving, self._on_problem = saving, on_problem
        self._buffers: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._problem: str | None = None
        self.write_seconds = 0.0
        """Duration of the last background write."""

    def save(self, step: int, slices: Sequence[ParamSlice], tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """Begin to write the checkpoint of ``step``; comes back when everything is copied. state: what state.json holds besides."""
        self.wait()
        self._problem = None
        pieces = pieces_of(slices) if self.saving.rank < self.saving.writers else []
        held = {name for name, *_ in pieces}
        copies = self._snapshot({key: value for key, value in tensors.items() if key.split("/", 1)[1] in held})
        state = json.loads(json.dumps(state, default=str))  # as it is now: counters go on changing
        self._thread = threading.Thread(target=self._run, args=(step, copies, pieces, state), name="saver", daemon=True)
        self._thread.start()

    def wait(self) -> str | None:
        """Until the save in the making is through; why it failed, None when it did not."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return self._problem

    def _snapshot(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies in host memory. The buffers are kept: fresh pages would cost more than the copying."""
        cuda = any(value.is_cuda for value in tensors.values())
        for key, value in tensors.items():
            buffer = self._buffers.get(key)
            if buffer is None or buffer.shape != value.shape:
                buffer = self._buffers[key] = torch.empty(value.shape, dtype=value.dtype, pin_memory=cuda)
            buffer.copy_(value.detach(), non_blocking=cuda)
        if cuda:
            torch.cuda.synchronize()
        return {key: self._buffers[key] for key in tensors}

    def _run(self, step: int, copies: dict[str, Tensor], pieces: list[Piece], state: dict[str, Any]) -> None:
        started = time.perf_counter()
        _yield_to_training()
        saving = self.saving
        folder = writing_folder(saving.root, step, saving.token)
        record = folder / f"rank-{saving.rank:05d}.json"
        try:
            if saving.rank == 0:
                self._clear_failed(step)
            if saving.rank < saving.writers:
                folder.mkdir(parents=True, exist_ok=True)
                _note(record, write_rank_file(folder, saving.rank, copies, pieces))
            if saving.rank == 0:
                files = self._collect(folder)
                commit(saving.root, folder, step, state, files)
        except Exception as error:  # a full disk has many types; whatever it is, the last good checkpoint stays and training goes on
            self._fail(step, folder, record, f"worker {saving.rank}: {error}")
        self.write_seconds = time.perf_counter() - started
        if saving.rank == 0 and self._problem is None:
            self._prune(step)

    def _clear_failed(self, step: int) -> None:
        """What other ranks wrote of a save that failed here may have come after it was cleared. Later steps are theirs: this thread may
        begin when they are at the next save already."""
        for left in self.saving.root.glob(f"{TEMPORARY}step-*-{self.saving.token}"):
            number = left.name.removeprefix(f"{TEMPORARY}step-").split("-", 1)[0]
            if number.isdigit() and int(number) < step:
                shutil.rmtree(left, ignore_errors=True)

    def _collect(self, folder: Path) -> list[dict[str, Any]]:
        """What each writer says of its file. Raises OSError when one failed or does not come."""
        files: dict[int, dict[str, Any]] = {}
        until = time.monotonic() + self.saving.patience_s
        while len(files) < self.saving.writers:
            for rank in set(range(self.saving.writers)) - files.keys():
                path = folder / f"rank-{rank:05d}.json"
                if path.is_file():
                    files[rank] = json.loads(path.read_text())
                    if "problem" in files[rank]:
                        raise OSError(files[rank]["problem"])
            if time.monotonic() > until:
                missing = sorted(set(range(self.saving.writers)) - files.keys())
                raise OSError(f"workers {missing} did not write their part within {self.saving.patience_s:g} s")
            if len(files) < self.saving.writers:
                time.sleep(0.02)
        return [files[rank] for rank in range(self.saving.writers)]

    def _fail(self, step: int, folder: Path, record: Path, problem: str) -> None:
        if self.saving.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
            self._on_problem(step, problem)
        else:
            # The file that does not fit goes, so that the note may; where that fails too, the main rank's patience ends it.
            for path in folder.glob(f"rank-{self.saving.rank:05d}.safetensors"):
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                _note(record, {"problem": problem})
        self._problem = problem

    def _prune(self, step: int) -> None:
        try:
            prune(self.saving.root, self.saving.keep, newest=step)
        except Exception as error:  # of whatever kind: the new checkpoint is committed, and the thread must not die of an old one
            self._on_problem(step, f"old checkpoints could not be removed: {error}")


def _note(path: Path, content: dict[str, Any]) -> None:
    """A small file that is there whole or not at all. Not forced to disk: the main rank removes it, and the folder may be committed and
    renamed as soon as it is seen."""
    write_text(path, json.dumps(content), durable=False)


def _yield_to_training() -> None:
    """Lowers the priority of this thread where the system has one for threads (Linux): steps first, writing in between."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
