"""jobs/sample.py: an artefact becomes samples, printed from this process or gathered in a folder by actors."""

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from elf.artefact import load_artefact
from elf_platform.capacity import Cluster
from elf_platform.data.progress import ProgressLine
from elf_platform.lock import exclusive
from elf_platform.lookup import resolve
from elf_platform.runtime import connect, native_stderr_off, this_machine, usable_cpus
from elf_platform.sampling.command import SampleCommand, Task, check
from elf_platform.sampling.folder import begin, check_ours, finish, missing_parts, unfinish
from elf_platform.sampling.pool import plan_pool, sampling_device
from elf_platform.sampling.rows import load_sampler, sample_batch
from elf_platform.terminal import Terminal, Words, harmless


def sample(command: SampleCommand) -> None:
    """Do what the command says. Raises ValueError or FileNotFoundError when it cannot be done."""
    if command.out is None:
        print_samples(command)
    else:
        fill_folder(command, command.out.expanduser().absolute())


def print_samples(command: SampleCommand) -> list[dict[str, Any]]:
    """Print a few samples, computed here with all CPUs or a GPU."""
    artefact = load_artefact(resolve(command.artefact, "artefact", storage=command.storage))
    task = check(command, artefact, threads=command.threads or usable_cpus())
    device, _ = sampling_device(command.gpu, this_machine(torch.cuda.device_count()))
    task = task.placed(device=device, compute_batch=min(command.compute_batch, task.config.count))
    sys.stderr.write(f"sampler: {task.settings}\n")
    sampler = load_sampler(task)
    rows: list[dict[str, Any]] = []
    columns = (Words("sampling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Terminal(stderr=True), transient=True) as bar:
        line = bar.add_task("sampling", total=None)
        for part, keep in enumerate(task.sizes):
            def advance(done: int, total: int, part: int = part) -> None:
                bar.update(line, completed=part * total + done, total=len(task.sizes) * total)

            rows += sample_batch(sampler, task.ids(part), task.sources_of(part), keep, advance)
    for row in rows:
        given = f"{row['source']!r} -> " if task.sources else ""
        sys.stdout.write(f"[{row['id']}] {given}{harmless(row['text'])}\n\n")
    nfe = max((row["nfe"] for row in rows), default=0)
    empty = sum(not row["text"].strip() for row in rows)
    many = "s" if len(rows) != 1 else ""
    sys.stderr.write(f"{len(rows)} sample{many}{_cut(task)}{_empty(empty)}, {nfe} network evaluations each (NFE)\n")
    return rows


def fill_folder(command: SampleCommand, folder: Path) -> dict[str, Any]:
    """Make what is missing of the samples in ``folder``, on Ray; returns the manifest."""
    artefact = load_artefact(resolve(command.artefact, "artefact", storage=command.storage))
    task = check(command, artefact, threads=command.threads or 1)
    sys.stderr.write(f"sampler: {task.settings}\n")
    check_ours(folder)
    with exclusive(folder, f"the sample folder {folder}", other="--out"), contextlib.ExitStack() as stack:
        # A private cluster has the GPUs of this machine, and is not started when nothing is to be made.
        cluster = stack.enter_context(connect()) if os.environ.get("RAY_ADDRESS") else None
        device, note = sampling_device(command.gpu, cluster or this_machine(torch.cuda.device_count()))
        if note:
            sys.stderr.write(f"sampling {note}\n")
        task = task.placed(device=device)
        begin(folder, task.run, task.config.count)
        parts = missing_parts(folder, task.sizes)
        if parts:
            _make(task, folder, parts, command, cluster or stack.enter_context(connect()))
        manifest = finish(folder, task.run, task.sizes, artefact.lineage, artefact.columns)
    done = sum(task.sizes[part] for part in parts)
    found = f" ({task.config.count - done} of them were there)" if done < task.config.count else ""
    with (folder / manifest["jsonl"]["file"]).open(encoding="utf-8") as lines:
        empty = sum(not json.loads(line)["text"].strip() for line in lines)
    what = f"{manifest['count']}{found}{_cut(task)}{_empty(empty)}"
    sys.stdout.write(f"samples   {folder}: {what}, {manifest['nfe']} network evaluations each (NFE)\n")
    return manifest


def _make(task: Task, folder: Path, parts: list[int], command: SampleCommand, cluster: Cluster) -> None:
    from elf_platform.sampling.actors import sample_parts

    pool = plan_pool(cluster, actors=command.actors, threads=task.run.threads, device=task.run.device, parts=len(parts))
    unfinish(folder)
    kept = task.config.count - sum(task.sizes[part] for part in parts)
    if kept:
        sys.stderr.write(f"{kept} of {task.config.count} samples are there already; sampling the rest\n")
    with native_stderr_off(), ProgressLine("sampling", task.config.count - kept, unit="samples", digits=0) as line:
        for record in sample_parts(task, folder, parts, pool):
            line.advance(record["rows"])


def _cut(task: Task) -> str:
    facts = task.run.sources
    said = f" of {facts.lines} source{'s' if facts.lines != 1 else ''}" if facts.lines else ""
    said += f", {facts.truncated} cut to the model's length" if facts.truncated else ""
    return said + (f", {facts.empty} empty" if facts.empty else "")


def _empty(samples: int) -> str:
    return f", {samples} of them without text" if samples else ""
