"""Samples of one compute batch: the function that every way of sampling goes through.

Shapes: B rows of a compute batch, L tokens.
"""

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elf.artefact import CONFIG, Artefact, load_artefact
from elf.draws import Draws
from elf.files import sha256_of
from elf.processes import Samples
from elf.sampling.condition import Condition, encode_condition
from elf.sampling.config import SampleConfig
from elf_platform.sampling.command import Task
from elf_platform.sampling.parts import write_part
from elf_platform.sampling.sources import Source

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A loaded artefact with settings, on one device."""

    artefact: Artefact
    network: torch.nn.Module
    """The artefact's network, compiled where that was asked for."""
    config: SampleConfig
    target_length: int
    device: torch.device

    @property
    def device_name(self) -> str:
        """For the record: what computed the samples."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"


def load_sampler(task: Task) -> Sampler:
    """The artefact, checked again, in this process, whose arithmetic is fixed. Raises ValueError when it is not the run's any more."""
    folder, run = task.artefact, task.run
    fix_arithmetic(run.threads)
    if sha256_of(folder / CONFIG) != run.artefact:
        raise ValueError(f"the artefact {folder} was replaced while samples were made of it; run the command again for the new one")
    device = torch.device(run.device)
    if run.compile and run.device == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        raise ValueError("--compile on a CPU needs a C++ compiler, but there is no g++ or clang++; install one, or leave --compile away")
    artefact = load_artefact(folder, device=device, precision=run.precision)
    network: Any = torch.compile(artefact.network, dynamic=False) if run.compile else artefact.network
    return Sampler(artefact=artefact, network=network, config=task.config, target_length=run.target_length, device=device)


def fix_arithmetic(threads: int) -> None:
    """The same products in the same order whenever the shapes are the same: fixed threads, deterministic kernels, no TF32."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.set_float32_matmul_precision("highest")
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")


def draw_rows(sampler: Sampler, ids: Sequence[int], sources: Sequence[Source], progress: Progress | None = None) -> Samples:
    """Tokens of the samples ``ids``; sample i takes its noise from (config.seed, i) alone. sources: one for each id, or none at all."""
    artefact, tokenizer = sampler.artefact, sampler.artefact.tokenizer
    # The total matters to draws that are stratified over a batch alone, and no sampler makes any: samples do not know each other.
    draws = Draws(seed=sampler.config.seed, step=0, rows=np.asarray(ids, dtype=np.int64), total=max(ids) + 1, device=sampler.device)
    condition: Condition | None = None
    if sources:
        condition = encode_condition(
            [source.tokens for source in sources], length=artefact.sizes.length, target_length=sampler.target_length,
            pad_id=tokenizer.pad_id, codec=artefact.codec, device=sampler.device,
        )
    return artefact.process.sample(
        sampler.network, draws, length=artefact.sizes.length, channels=artefact.sizes.channels, config=sampler.config,
        eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id, progress=progress, condition=condition,
    )


def sample_batch(
    sampler: Sampler, ids: Sequence[int], sources: Sequence[Source], keep: int, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """The first ``keep`` samples of a compute batch, with the columns of ``parts.COLUMNS``; the others only fill its shape.

    A sample of an empty source is empty, and costs nothing where a batch has no other."""
    tokenizer = sampler.artefact.tokenizer
    empty = [bool(sources) and not sources[k].tokens for k in range(len(ids))]
    drawn: list[list[int]] = [[] for _ in ids]
    nfe = 0
    if not all(empty):
        samples = draw_rows(sampler, ids, sources, progress)
        drawn, nfe = samples.ids_BL.tolist(), samples.nfe
    rows = []
    for k in range(keep):
        tokens = [] if empty[k] else [token for token in drawn[k] if token != tokenizer.pad_id]
        rows.append({
            "id": ids[k],
            "text": tokenizer.decode(tokens),
            "tokens": tokens,
            "source": sources[k].text if sources else "",
            "truncated": sources[k].truncated if sources else False,
            "seed": sampler.config.seed,
            "nfe": 0 if empty[k] else nfe,
        })
    return rows


def make_part(sampler: Sampler, task: Task, folder: Path, part: int) -> dict[str, Any]:
    """Sample a compute batch and commit it as a part of ``folder``; returns its record."""
    rows = sample_batch(sampler, task.ids(part), task.sources_of(part), task.sizes[part])
    return write_part(folder, part, rows, run=task.run.to_dict(), device=sampler.device_name)
