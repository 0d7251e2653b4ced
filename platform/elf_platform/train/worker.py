"""What one training worker does, from a plain job description to a trained checkpoint. Knows no Ray: the driver calls it inside one."""

import contextlib
import gc
import os
import socket
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from elf.codecs import Codec, load_codec
from elf.data.order import derive_key
from elf.processes import Process
from elf_platform.config import RunConfig
from elf_platform.data.reader import RowReader
from elf_platform.tracking import RunHandle, Tracker, read_events, start_tracker
from elf_platform.train.checkpoint import Checkpoint, CheckpointReader, clear_unfinished, latest
from elf_platform.train.context import WorkerContext
from elf_platform.train.engine import build_engine
from elf_platform.train.feed import passes
from elf_platform.train.health import RolledBack
from elf_platform.train.lineage import check_lineage, lineage_of
from elf_platform.train.loop import Outcome, Training, train
from elf_platform.train.module import ProcessModule
from elf_platform.train.snapshots import Snapshots
from elf_platform.train.world import gather_objects


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the driver hands to every worker: paths on shared storage and plain values."""

    config: RunConfig
    run_folder: Path
    data_folder: Path
    data_fingerprint: str
    codec_folder: Path | None  # of the codec whose states the process learns
    channels: int  # state width of the network that is trained
    threads: int
    tracking: RunHandle
    code_version: str
    shared: bool = False
    """The run folder is named after all that decides what is trained there, and belongs to no run: that of an encoder."""
    launch: str = ""  # names one call of the driver: its requests to stop are for its own workers alone


def initial_network(job: Job, vocab_size: int, *, resume: Checkpoint | None = None) -> torch.nn.Module:
    """The network to start from: seeded initial weights, or the checkpoint's. The same on every worker."""
    config = job.config
    with torch.random.fork_rng(devices=[]):  # the seed is for these weights alone, whenever they are made
        torch.manual_seed(derive_key("weights", config.seed) >> 1)
        network = config.process.build_network(
            config.network, vocab_size=vocab_size, channels=job.channels, length=config.data.length,
            precision=config.train.precision, activation_checkpointing=config.train.activation_checkpointing,
        )
    if resume is not None:
        network.load_state_dict(CheckpointReader(resume).whole("weight"))
    return network


def run_worker(job: Job, context: WorkerContext) -> Outcome:
    """Train as one of ``context.world_size`` workers; resumes from the newest valid checkpoint of the run folder.

    Raises ValueError when there are checkpoints but none is valid, and what ``loop.train`` raises."""
    _set_up_process(job, context)
    tracker = start_tracker(job.tracking if context.is_main else RunHandle(kind="null"), job.run_folder)
    try:
        while True:
            try:
                return _attempt(job, context, tracker)
            except RolledBack:
                # All workers are here, by the same reduced figures. The engine is built anew from the checkpoint: DeepSpeed
                # has no way to put weights into one that runs.
                gc.collect()
    finally:
        tracker.close()


def _attempt(job: Job, context: WorkerContext, tracker: Tracker) -> Outcome:
    """From the newest valid checkpoint to the end, or to whatever interrupts it."""
    config = job.config
    process: Process = config.process
    train_rows, valid_rows = RowReader(job.data_folder, "train"), RowReader(job.data_folder, "valid")
    codec: Codec | None = load_codec(job.codec_folder).to(context.device) if job.codec_folder else None
    lineage = lineage_of(
        config, data=job.data_fingerprint, codec=codec.fingerprint if codec else None, code_version=job.code_version,
        tracking_run=job.tracking.run_id,
    )
    resume = find_resume(job, context, tracker, lineage)
    network = initial_network(job, train_rows.tokenizer.vocab_size, resume=resume).to(context.device)
    engine = build_engine(
        config.engine_kind, ProcessModule(process, network), config.optim, config.engine, context,
        total_steps=config.train.steps, accumulation=passes(config.train.global_batch, context.world_size, config.train.micro_batch),
    )
    snapshots = None
    if context.is_main and config.train.sample_every:
        snapshots = Snapshots(
            process, lambda: initial_network(job, train_rows.tokenizer.vocab_size), train_rows.tokenizer, config.sample,
            run_folder=job.run_folder, length=config.data.length, channels=job.channels, device=context.device,
            rows=valid_rows if config.data.source_column else None, codec=codec,
        )
    try:
        return train(
            Training(
                config=config, context=context, process=process, network=network, engine=engine, codec=codec,
                train_rows=train_rows, valid_rows=valid_rows if len(valid_rows) else None, tracker=tracker, snapshots=snapshots,
                lineage=lineage, resume=resume, launch=job.launch,
            )
        )
    except RolledBack:
        engine.close()
        raise


def find_resume(job: Job, context: WorkerContext, tracker: Tracker, lineage: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint to go on from, the same on all workers, which share the reading of its files; and the attempt on record.

    Raises ValueError when there are checkpoints and none is valid, and when the newest valid one is not of this run."""
    root = job.run_folder / "checkpoints"
    if context.is_main:
        clear_unfinished(root)
    passed: list[str] = []
    resume = latest(root, passed.append, part=(context.rank, context.world_size), gather=gather_objects)
    if resume is None and gather_objects(_was_further(job.run_folder))[0]:
        raise ValueError(
            f"the run in {job.run_folder} was resumed from a checkpoint before, but {root} holds none now: starting over would silently "
            "throw the training away. Put a checkpoint back; or, to train from the start, remove the run's folder or give it another --name"
        )
    if resume is not None:
        check_lineage(resume, lineage, None if job.shared else job.config)
    step = resume.step if resume else 0
    for message in passed:
        tracker.event(step, "passed_over", message)
    where = gather_objects((os.getpid(), socket.gethostname()))
    processes = ", ".join(f"{pid} on {host}" for pid, host in where)
    engine = f"DeepSpeed ZeRO {job.config.engine.zero}" if job.config.engine_kind == "deepspeed" else "plain engine"
    earlier = resume.state.get("workers", context.world_size) if resume else context.world_size
    if earlier != context.world_size:
        tracker.event(step, "resize", f"{earlier} to {context.world_size} workers; the global batch stays {job.config.train.global_batch}")
    count = f"{context.world_size} worker{'s' if context.world_size > 1 else ''}"
    tracker.event(step, "attempt", f"{count}, {engine}, from step {step}; processes {processes}")
    return resume


def _was_further(run_folder: Path) -> bool:
    """An earlier attempt of this run went on from a checkpoint."""
    return any(event.kind == "attempt" and event.step > 0 for event in read_events(run_folder))


def _set_up_process(job: Job, context: WorkerContext) -> None:
    """Threads, matrix precision and quiet libraries."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if context.device.type == "cuda" else "cpu")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed.*")
    torch.set_num_threads(job.threads)
    _raise_priority()
    if context.device.type == "cuda":
        torch.cuda.set_device(context.device)
        torch.set_float32_matmul_precision("high")  # TF32 for the parts outside autocast, as the official code trains (elf.md A.8)


def _raise_priority() -> None:
    """Ray starts all its workers at a low priority, which puts the steps behind Ray's own idle processes; back to that of the process
    that started them where this user may (docs/lab-log.md, Priority). So `nice` before a command holds for its workers."""
    if Path("/proc/self/task").is_dir():
        with contextlib.suppress(OSError):
            ordinary = max(0, os.getpriority(os.PRIO_PROCESS, os.getppid()))
            for thread in os.listdir("/proc/self/task"):
                os.setpriority(os.PRIO_PROCESS, int(thread), ordinary)
