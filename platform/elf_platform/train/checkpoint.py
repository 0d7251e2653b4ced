"""Checkpoints: a folder of slices that loads at any engine, ZeRO stage and number of workers.

step-00000100/
    rank-00000.safetensors   flat float32 pieces, keyed "<kind>/<parameter>": weight, ema and the optimiser's states
    state.json               format, step, counters, config, data fingerprint, code version, and which piece each tensor is
    COMMITTED                SHA-256 of every file, written last: a folder without a valid one does not exist

No pickle anywhere. A folder is written under a temporary name, marker last, and then renamed: a killed save leaves no step-* folder, so
one without a valid marker was damaged afterwards.
"""

import contextlib
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from elf.files import REPLACED, TEMPORARY, committing, discard, inside, publish, sha256_of, write_text
from elf.optim import ParamSlice

FORMAT = 1
MARKER = "COMMITTED"
Piece = tuple[str, int, int, tuple[int, ...]]  # parameter name, start, stop, whole shape


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A committed checkpoint on disk."""

    folder: Path
    step: int
    state: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Which committed checkpoints stay when a new one is there."""

    last: int = 3
    best: bool = False  # the one with the lowest valid_loss in its state
    every: int = 0  # all at multiples of this step


def checkpoint_folder(root: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` finished optimiser steps lies."""
    return root / f"step-{step:08d}"


def writing_folder(root: Path, step: int, token: str) -> Path:
    """The temporary folder of a save in progress, the same for all ranks of one attempt (``token``)."""
    return root / f"{TEMPORARY}step-{step:08d}-{token}"


def pieces_of(slices: Sequence[ParamSlice]) -> list[Piece]:
    """What a rank's file holds of which tensors."""
    return [(s.name, s.start, s.stop, s.shape) for s in slices if s.stop > s.start]


def write_rank_file(folder: Path, rank: int, tensors: Mapping[str, Tensor], pieces: Sequence[Piece]) -> dict[str, Any]:
    """Write one rank's flat CPU tensors into the (uncommitted) folder, and on to the disk; gives back what state.json and the marker say
    of the file."""
    name = f"rank-{rank:05d}.safetensors"
    with committing(folder / name) as temporary:
        save_file(dict(tensors), temporary)
    return {"name": name, "sha256": sha256_of(folder / name), "pieces": list(pieces)}


def commit(root: Path, writing: Path, step: int, state: dict[str, Any], files: list[dict[str, Any]]) -> Path:
    """Make the written folder the checkpoint of ``step``: state.json, marker, rename. One rank calls this, after all have written.

    A valid checkpoint of that step stays as it is, and the new one goes."""
    write_text(writing / "state.json", json.dumps({"format": FORMAT, "step": step, **state, "files": files}, indent=1, default=str))
    hashes = {f["name"]: f["sha256"] for f in files} | {"state.json": sha256_of(writing / "state.json")}
    for extra in writing.iterdir():
        if extra.name not in hashes:
            extra.unlink()
    write_text(writing / MARKER, json.dumps(hashes, indent=1))
    final = checkpoint_folder(root, step)
    if final.exists() and problem_with(final) is None:
        shutil.rmtree(writing)
    else:
        publish(writing, final)
    return final


def problem_with(folder: Path, *, part: tuple[int, int] = (0, 1)) -> str | None:
    """Why the folder is no valid checkpoint, or None when it is one. Reads every byte.

    part: (rank, world size) when ranks share the reading: each hashes its part of the files."""
    marker = folder / MARKER
    if not marker.is_file():
        return "it has no COMMITTED marker"
    try:
        hashes = json.loads(marker.read_text())
        for i, (name, expected) in enumerate(sorted(hashes.items())):
            if not inside(folder, name).is_file():
                return f"{name} is missing"
            if i % part[1] == part[0] and sha256_of(folder / name) != expected:
                return f"{name} does not have the SHA-256 in the marker"
        state = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError, AttributeError) as error:
        return f"it cannot be read: {error}"
    if state.get("format") != FORMAT:
        return f"its format is {state.get('format')}, this version reads {FORMAT}"
    return None


def intact(root: Path, step: int) -> bool:
    """Whether the checkpoint of ``step`` is there and valid. Reads every byte."""
    return problem_with(checkpoint_folder(root, step)) is None


def latest(
    root: Path, log: Callable[[str], None] = print, *, part: tuple[int, int] = (0, 1),
    gather: Callable[[Any], list[Any]] = lambda value: [value],
) -> Checkpoint | None:
    """The newest valid checkpoint; None when there never was one. ``log`` is told which were passed over and why.

    Ranks that share the reading call it together, with their ``part`` and a ``gather`` of small values over all of them.
    Raises ValueError when there are checkpoints and none is valid: starting over would silently throw the training away."""
    names = gather(sorted((f.name for f in root.glob("step-*") if f.name[5:].isdigit()), reverse=True) if root.is_dir() else [])[0]
    said = []
    for folder in (root / name for name in names):
        problem = next((p for p in gather(problem_with(folder, part=part)) if p is not None), None)
        if problem is None:
            state = json.loads((folder / "state.json").read_text())
            return Checkpoint(folder=folder, step=state["step"], state=state)
        said.append(f"Passing over checkpoint {folder}: {problem}.")
        log(said[-1])
    if said:
        raise ValueError(
            f"{root} holds checkpoints, but none that can be resumed from. {' '.join(said)} Put a good copy back; or, to train from the "
            f"start, remove {root} or give the run another --name"
        )
    return None


def goes_on_from(root: Path) -> str:
    """Where the same command goes on, in words; of committed checkpoints, whose bytes are not read here."""
    steps = [int(f.name[5:]) for f in root.glob("step-*") if f.name[5:].isdigit() and (f / MARKER).is_file()]
    if not steps:
        return "no checkpoint was committed yet: the same command trains from the start"
    return f"the newest checkpoint is of step {max(steps)}: the same command goes on from there"


def prune(root: Path, keep: Retention, *, newest: int) -> None:
    """Remove the committed checkpoints that ``keep`` does not name, now that the one of step ``newest`` is committed.

    Later ones were passed over as damaged: they take no place, and go when training commits their step again."""
    steps = {f: int(f.name[5:]) for f in root.glob("step-*") if f.name[5:].isdigit() and (f / MARKER).is_file()}
    folders = sorted((f for f in steps if steps[f] <= newest), key=lambda f: steps[f], reverse=True)
    stay = set(folders[: keep.last])
    if keep.every:
        stay |= {f for f in folders if steps[f] % keep.every == 0}
    if keep.best:
        stay |= _best(folders)
    for folder in folders:
        if folder not in stay:
            discard(folder)


def _best(folders: Sequence[Path]) -> set[Path]:
    """The one with the lowest finite validation loss; one that cannot be read is none."""
    scored: dict[Path, float] = {}
    for folder in folders:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            loss = json.loads((folder / "state.json").read_text()).get("valid_loss")
            if isinstance(loss, int | float) and math.isfinite(loss):
                scored[folder] = loss
    return {min(scored, key=lambda f: scored[f])} if scored else set()


def clear_unfinished(root: Path) -> None:
    """Remove what killed saves and half-done removals left. One rank calls this before any save begins."""
    for prefix in (TEMPORARY, REPLACED):
        for folder in root.glob(f"{prefix}step-*"):
            shutil.rmtree(folder, ignore_errors=True)


class CheckpointReader:
    """Reads any piece of any tensor of a checkpoint, whatever layout it was written from."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._where: dict[str, list[tuple[str, int, int]]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in checkpoint.state["files"]:
            for name, start, stop, shape in file["pieces"]:
                self._where.setdefault(name, []).append((file["name"], start, stop))
                self.shapes[name] = tuple(shape)

    def read(self, kind: str, name: str, start: int, stop: int) -> Tensor:
        """float32 [stop - start] of the flattened tensor "kind/name".

        Raises ValueError when the checkpoint does not hold it whole."""
        out, covered = torch.empty(stop - start), 0
        for file, held_start, held_stop in self._where.get(name, ()):
            low, high = max(start, held_start), min(stop, held_stop)
            if low >= high:
                continue
            try:
                with safe_open(inside(self.checkpoint.folder, file), framework="pt") as handle:
                    piece = handle.get_slice(f"{kind}/{name}")[low - held_start : high - held_start]
            except SafetensorError as error:
                raise ValueError(f"checkpoint {self.checkpoint.folder} holds no {kind} of {name}: {error}") from error
            out[low - start : high - start] = piece
            covered += high - low
        if covered != stop - start:
            raise ValueError(
                f"checkpoint {self.checkpoint.folder} holds {covered} of {stop - start} values of {kind}/{name}; it belongs to another "
                "network, or was altered by hand"
            )
        return out

    def whole(self, kind: str) -> dict[str, Tensor]:
        """All tensors of a kind ("weight" or "ema") in their parameters' shapes."""
        return {
            name: self.read(kind, name, 0, int(torch.Size(shape).numel())).view(shape) for name, shape in self.shapes.items()
        }

    @torch.no_grad()
    def restore(self, slices: Sequence[ParamSlice], state: dict[str, Tensor]) -> None:
        """Copy this rank's pieces into the live tensors of ``Updater.state()``."""
        by_name = {s.name: s for s in slices}
        for key, tensor in state.items():
            kind, name = key.split("/", 1)
            tensor.copy_(self.read(kind, name, by_name[name].start, by_name[name].stop))
