"""Checkpoints: a folder of slices that loads at any engine, ZeRO stage and number of workers.

step-00000100/
    rank-00000.safetensors   flat float32 pieces, keyed "<kind>/<parameter>": weight, ema and the optimiser's states
    state.json               format, step, counters, config, data fingerprint, code version, and which piece each tensor is
    COMMITTED                SHA-256 of every file, written last: a folder without a valid one does not exist

No pickle anywhere. A folder is written under a temporary name and renamed before the marker is written.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from elf.files import TEMPORARY, sha256_of, write_text
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


def checkpoint_folder(root: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` finished optimiser steps lies."""
    return root / f"step-{step:08d}"


def write_rank_file(folder: Path, rank: int, slices: Sequence[ParamSlice], state: dict[str, Tensor]) -> dict[str, Any]:
    """Write one rank's pieces into the (uncommitted) folder; gives back what state.json and the marker say of the file."""
    name = f"rank-{rank:05d}.safetensors"
    held = {s.name: s for s in slices if s.stop > s.start}
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items() if key.split("/", 1)[1] in held}
    # Views into one flat buffer share its storage, which safetensors refuses: those are copied.
    tensors = {k: v.clone() if v.untyped_storage().nbytes() != v.nbytes else v for k, v in tensors.items()}
    save_file(tensors, folder / name)
    pieces: list[Piece] = [(s.name, s.start, s.stop, s.shape) for s in held.values()]
    return {"name": name, "sha256": sha256_of(folder / name), "pieces": pieces}


def commit(root: Path, writing: Path, step: int, state: dict[str, Any], files: list[dict[str, Any]]) -> Path:
    """Make the written folder the checkpoint of ``step``: state.json, rename, marker. One rank calls this, after all have written."""
    write_text(writing / "state.json", json.dumps({"format": FORMAT, "step": step, **state, "files": files}, indent=1, default=str))
    hashes = {f["name"]: f["sha256"] for f in files} | {"state.json": sha256_of(writing / "state.json")}
    final = checkpoint_folder(root, step)
    if final.exists():  # left without a valid marker by a killed save, or written by the attempt that this one repeats
        shutil.rmtree(final)
    writing.rename(final)
    write_text(final / MARKER, json.dumps(hashes, indent=1))
    return final


def writing_folder(root: Path, step: int) -> Path:
    """The temporary folder of a save in progress, the same for all ranks."""
    return root / f"{TEMPORARY}step-{step:08d}"


def prepare_folder(root: Path, step: int) -> Path:
    """An empty temporary folder for a save; one rank calls this before all write."""
    folder = writing_folder(root, step)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def problem_with(folder: Path) -> str | None:
    """Why the folder is no valid checkpoint, or None when it is one. Reads every byte."""
    marker = folder / MARKER
    if not marker.is_file():
        return "it has no COMMITTED marker, so its save did not finish"
    try:
        hashes = json.loads(marker.read_text())
        for name, expected in hashes.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if sha256_of(folder / name) != expected:
                return f"{name} does not have the SHA-256 in the marker"
        state = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError, AttributeError) as error:
        return f"it cannot be read: {error}"
    if state.get("format") != FORMAT:
        return f"its format is {state.get('format')}, this version reads {FORMAT}"
    return None


def latest(root: Path, log: Callable[[str], None] = print) -> Checkpoint | None:
    """The newest valid checkpoint, None when there is none; ``log`` is told which were passed over and why."""
    folders = sorted(root.glob("step-*"), reverse=True) if root.is_dir() else []
    for folder in folders:
        problem = problem_with(folder)
        if problem is None:
            state = json.loads((folder / "state.json").read_text())
            return Checkpoint(folder=folder, step=state["step"], state=state)
        log(f"Passing over checkpoint {folder}: {problem}.")
    return None


def prune(root: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` committed checkpoints, and what killed saves left."""
    committed = [f for f in sorted(root.glob("step-*"), reverse=True) if (f / MARKER).is_file()]
    for folder in committed[keep:]:
        # The marker goes first: a half-removed folder must not look valid.
        (folder / MARKER).unlink()
        shutil.rmtree(folder)


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
                with safe_open(self.checkpoint.folder / file, framework="pt") as handle:
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

    def restore(self, slices: Sequence[ParamSlice], state: dict[str, Tensor]) -> None:
        """Copy this rank's pieces into the live tensors of ``Updater.state()``."""
        by_name = {s.name: s for s in slices}
        for key, tensor in state.items():
            kind, name = key.split("/", 1)
            tensor.copy_(self.read(kind, name, by_name[name].start, by_name[name].stop))
