"""Where the parts of a run are placed: checks before it, and single tasks on the right machine."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from elf_platform.capacity import Cluster
from elf_platform.config import RunConfig
from elf_platform.sizes import expected_sizes, shape_network
from elf_platform.train.preflight import Placement, Sum, check_disk, check_memory, place

T = TypeVar("T")
J = TypeVar("J")


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What was checked before anything is done, in words."""

    line: str
    """Workers and threads, memory, disk."""
    sums: str
    """How memory and disk come about."""


def preflight(config: RunConfig, cluster: Cluster) -> tuple[Placement, Preflight]:
    """Refuse what cannot run, with the sums: workers against the cluster, memory, disk. Before any work is done.

    Returns where the run goes, and the sums in words."""
    placement = place(config, cluster)
    vocab_size, channels = expected_sizes(config)
    parameters = sum(p.numel() for p in shape_network(config, vocab_size=vocab_size, channels=channels).parameters())
    memory: Sum | None = None
    if not placement.use_gpu:
        # Another machine's memory cannot be asked from here; its workers' own check is the allocation.
        available = _available_memory() if cluster.local else float("inf")
        memory = check_memory(parameters, config, available=available, per_machine=config.train.workers, snapshot=True)
    elif torch.cuda.is_available():
        memory = check_memory(parameters, config, available=float(torch.cuda.mem_get_info()[1]), per_machine=1)
    disk = check_disk(parameters, config, config.storage)
    workers = f"{config.train.workers} worker{'s' if config.train.workers > 1 else ''}"
    kind = f"{'1 GPU and ' if placement.use_gpu else ''}{placement.threads} CPU thread{'s' if placement.threads > 1 else ''}"
    note = f" ({placement.note})" if placement.note else ""
    room = f"needs {memory} of free memory, before activations" if memory else "memory not known from here"
    return placement, Preflight(
        line=f"{workers} with {kind}{' each' if config.train.workers > 1 else ''}{note}; {room}; needs {disk} of free disk",
        sums=f"memory: {memory.words if memory else 'not known from here'}; disk: {disk.words}",
    )


def remotely(function: Callable[[J], T], job: J, *, use_gpu: bool, cluster: Cluster) -> T:
    """``function(job)`` here on a private cluster without GPUs, else as a task on a machine of the kind that trained."""
    if cluster.local and not use_gpu:
        return function(job)
    import ray

    remote = ray.remote(num_cpus=1, num_gpus=1 if use_gpu else 0, max_retries=1)(function)
    result: T = ray.get(remote.remote(job))
    return result


def machine_memory() -> float:
    """Bytes of main memory that processes here may use at the most, swap included; unlimited where the system does not say."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        total = sum(float(lines[name].split()[0]) * 1024 for name in ("MemTotal", "SwapTotal"))
        limit = Path("/sys/fs/cgroup/memory.max")
        limited = limit.read_text().strip() if limit.is_file() else "max"
        return min(total, float(limited)) if limited.isdecimal() else total
    except (OSError, KeyError, ValueError):
        return float("inf")


def _available_memory() -> float:
    """Bytes of main memory that are free for new processes; unlimited where the system does not say."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return float(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return float("inf")
