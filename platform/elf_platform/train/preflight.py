"""Refuses what cannot run before anything is prepared or paid for, and shows the sum it did."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from elf.optim import NEGLIGIBLE_SHARE
from elf_platform.capacity import Cluster
from elf_platform.config import RunConfig

_GB = 1e9
_POINT_BYTES = 500.0  # of a logged point in metrics.jsonl, at the least
_ROW_BYTES = 3.0  # of a row's number in rows/, at the least


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What a run takes of the cluster."""

    use_gpu: bool
    threads: int
    """CPU threads per worker; its node has a CPU for each."""
    note: str = ""
    """What the user would not expect of it."""


def place(config: RunConfig, cluster: Cluster) -> Placement:
    """GPUs and threads for the workers; each fits one node, of those that are there or that autoscaling may bring.

    Raises ValueError when the workers do not fit the cluster, with the numbers compared."""
    train = config.train
    needed = train.min_workers or train.workers  # an elastic group starts with what is there
    on_gpus = cluster.room(cpus=1, gpus=1)
    use_gpu = train.gpu == "on" or (train.gpu == "auto" and on_gpus >= needed)
    if use_gpu and on_gpus < needed:
        raise ValueError(
            f"train.workers {needed} with train.gpu {train.gpu} needs {needed} GPUs, each with a CPU of its node, but the cluster has "
            f"{on_gpus}: {cluster.words()}; lower train.workers, add GPU nodes, or set train.gpu to off to train on CPUs"
        )
    gpus = 1 if use_gpu else 0
    threads = train.threads or cluster.widest(train.workers, gpus=gpus)
    room = cluster.room(cpus=threads, gpus=gpus)
    if room < needed:
        fewer = cluster.widest(needed, gpus=gpus)
        fits = fewer < threads and cluster.room(cpus=fewer, gpus=gpus) >= needed
        ways = [f"lower train.workers to at most {room}"] * (room > 0) + [f"lower train.threads to at most {fewer}"] * fits
        raise ValueError(
            f"train.workers {needed} x {threads} CPU threads = {needed * threads} CPUs, and each worker has to fit one node, but the "
            f"cluster has {cluster.words()}, with room for {room}; {', or '.join(ways or ['join a larger cluster'])}"
        )
    return Placement(use_gpu=use_gpu, threads=threads, note=_note(config, cluster, use_gpu, needed, threads))


def _note(config: RunConfig, cluster: Cluster, use_gpu: bool, needed: int, threads: int) -> str:
    if use_gpu and cluster.room_now(cpus=threads, gpus=1) < needed:
        return "the cluster scales up for them first"
    if config.train.gpu == "auto" and not use_gpu and (some := cluster.room(cpus=1, gpus=1)):
        return f"on CPUs, because the cluster has GPUs for {some} worker{'s' if some > 1 else ''} only"
    return ""


def memory_per_worker(parameters: int, config: RunConfig) -> tuple[float, str]:
    """Bytes for weights, gradients, optimiser state and average on one worker, and the sum in words (float32 throughout;
    activations come on top and depend on the micro-batch)."""
    stage, world = config.engine.zero, config.train.min_workers or config.train.workers
    state = {"muon": 1.1, "adamw": 2.0}[config.optim.name]  # momentum and the Adam moments of what is no matrix; two moments
    sharded = config.engine_kind == "deepspeed" and world > 1
    weights = 4.0 * parameters / (world if sharded and stage == 3 else 1)
    master = 4.0 * parameters / world if sharded and stage > 0 else 0.0
    gradients = 4.0 * parameters / (world if sharded and stage >= 2 else 1)
    rest = 4.0 * parameters * (1 + state) / (world if sharded and stage >= 1 else 1)
    total = weights + master + gradients + rest
    words = (
        f"weights {weights / _GB:.2f} + master weights {master / _GB:.2f} + gradients {gradients / _GB:.2f} + optimiser state and "
        f"moving average {rest / _GB:.2f} = {total / _GB:.2f} GB per worker (ZeRO {stage}, {world} workers)"
    )
    return total, words


@dataclass(frozen=True, kw_only=True)
class Sum:
    """Bytes that a run needs of what is there, and how they come about."""

    needed: float
    available: float
    words: str

    def __str__(self) -> str:
        needed = f"{self.needed / _GB:,.1f} GB" if self.needed >= _GB else f"{self.needed * 1000 / _GB:,.0f} MB"
        return f"{needed} of {self.available / _GB:,.0f} GB" if math.isfinite(self.available) else needed


def check_memory(parameters: int, config: RunConfig, *, available: float, per_machine: int, snapshot: bool = False) -> Sum:
    """What the workers of one machine or GPU need. Raises ValueError when ``per_machine`` of them need more than ``available`` bytes before
    any activation.

    snapshot: the copy that a save in the background writes from lies in the same memory (it does on CPUs)."""
    total, words = memory_per_worker(parameters, config)
    if snapshot:
        sharded = config.engine_kind == "deepspeed" and config.engine.zero > 0
        copy = checkpoint_bytes(parameters, config) / ((config.train.min_workers or config.train.workers) if sharded else 1)
        total, words = total + copy, f"{words}; and {copy / _GB:.2f} GB for saving in the background"
    if total * per_machine > available:
        raise ValueError(
            f"{parameters:,} parameters need {words}; {per_machine} of them on one machine or GPU need "
            f"{total * per_machine / _GB:.2f} GB, but {available / _GB:.2f} GB are there. Use a higher engine.zero with more "
            "workers, or a smaller network"
        )
    return Sum(needed=total * per_machine, available=available, words=words)


def average_note(config: RunConfig) -> str:
    """What a run should know about its moving average, which starts at the initial weights without a warm-up (elf.md B); empty where little
    of them is left at the end."""
    steps, decay = config.train.steps, config.optim.ema_decay
    left = decay**steps
    if left < NEGLIGIBLE_SHARE:
        return ""
    return (
        f"the moving average (optim.ema_decay {decay:g}) reaches back to the start of these {steps:,} steps. Its {left:.0%} of initial "
        f"weights are taken out of what is sampled and exported, but early weights stay in: --optim.ema_decay "
        f"{math.floor(0.01 ** (1 / steps) * 1e4) / 1e4:g} or lower forgets them"
    )


def checkpoint_bytes(parameters: int, config: RunConfig) -> float:
    """Size of one checkpoint: weights, average and optimiser state in float32."""
    return 4.0 * parameters * (2 + {"muon": 1.1, "adamw": 2.0}[config.optim.name])


def check_disk(parameters: int, config: RunConfig, folder: Path, *, free: float | None = None) -> Sum:
    """What the run leaves on disk. Raises ValueError when the checkpoints that are kept, one being written and the artefact do not fit.

    free: bytes free on ``folder``'s disk; asked of the system when None."""
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    free = float(shutil.disk_usage(existing).free) if free is None else free
    # What a resumed run has written already makes room for what is counted below.
    free += sum(p.stat().st_size for p in (folder / "runs" / config.name / "checkpoints").glob("step-*/*"))
    train = config.train
    periodic = train.steps // train.keep_every if train.keep_every else 0
    written = -(-train.steps // train.checkpoint_every)
    one, kept = checkpoint_bytes(parameters, config), min(train.keep + 1 + train.keep_best + periodic, written + 1)
    figures = _POINT_BYTES * (train.steps // train.log_every) + (_ROW_BYTES * train.steps * train.global_batch if train.record_rows else 0)
    needed = one * kept + 4.0 * parameters + figures
    words = f"{kept} checkpoints of {one / _GB:.2f} GB + artefact {4.0 * parameters / _GB:.2f} GB"
    words += f" + figures of {train.steps:,} steps {figures / _GB:.2f} GB" if figures > 0.01 * _GB else ""
    words += f" = {needed / _GB:.2f} GB"
    if needed > free:
        raise ValueError(
            f"the run needs {words}, but {existing} has {free / _GB:.2f} GB free; free some, set --storage to a larger disk, lower "
            "train.keep, or log and record less often"
        )
    return Sum(needed=needed, available=free, words=words)
