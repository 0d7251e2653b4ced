"""What one training worker does, from a plain job description to a trained checkpoint. Knows no Ray: the driver calls it inside one."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from elf.codecs import Codec, load_codec
from elf.data.order import derive_key
from elf.processes import Process
from elf_platform.config import RunConfig
from elf_platform.config_io import to_dict
from elf_platform.data.reader import RowReader
from elf_platform.tracking import RunHandle, start_tracker
from elf_platform.train.checkpoint import Checkpoint, CheckpointReader, latest
from elf_platform.train.context import WorkerContext
from elf_platform.train.engine import build_engine
from elf_platform.train.loop import Training, micro_batch_rows, train
from elf_platform.train.module import ProcessModule
from elf_platform.train.snapshots import Snapshots


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


def initial_network(job: Job, vocab_size: int, *, resume: Checkpoint | None = None) -> torch.nn.Module:
    """The network to start from: seeded initial weights, or the checkpoint's. The same on every worker."""
    config = job.config
    torch.manual_seed(derive_key("weights", config.seed) >> 1)
    network = config.process.build_network(
        config.network, vocab_size=vocab_size, channels=job.channels, length=config.data.length,
        precision=config.train.precision, activation_checkpointing=config.train.activation_checkpointing,
    )
    if resume is not None:
        network.load_state_dict(CheckpointReader(resume).whole("weight"))
    return network


def run_worker(job: Job, context: WorkerContext) -> None:
    """Train as one of ``context.world_size`` workers; resumes from the newest valid checkpoint of the run folder."""
    _set_up_process(job, context)
    config = job.config
    process: Process = config.process
    train_rows, valid_rows = RowReader(job.data_folder, "train"), RowReader(job.data_folder, "valid")
    codec: Codec | None = load_codec(job.codec_folder).to(context.device) if job.codec_folder else None
    tracker = start_tracker(job.tracking if context.is_main else RunHandle(kind="null"), job.run_folder)
    messages: list[str] = []
    resume = latest(job.run_folder / "checkpoints", messages.append)
    for message in messages:
        tracker.text("warning", message, resume.step if resume else 0)
    network = initial_network(job, train_rows.tokenizer.vocab_size, resume=resume).to(context.device)
    share = config.train.global_batch // context.world_size
    engine = build_engine(
        config.engine_kind, ProcessModule(process, network), config.optim, config.engine, context,
        total_steps=config.train.steps, accumulation=share // micro_batch_rows(config),
    )
    snapshots = None
    if context.is_main and config.train.sample_every:
        snapshots = Snapshots(
            process, lambda: initial_network(job, train_rows.tokenizer.vocab_size), train_rows.tokenizer, config.sample,
            run_folder=job.run_folder, length=config.data.length, channels=job.channels, device=context.device,
        )
    lineage: dict[str, Any] = {
        "config": to_dict(config),
        "data": job.data_fingerprint,
        "code_version": job.code_version,
        "tracking_run": job.tracking.run_id,
    }
    try:
        train(
            Training(
                config=config, context=context, process=process, network=network, engine=engine, codec=codec,
                train_rows=train_rows, valid_rows=valid_rows if len(valid_rows) else None, tracker=tracker, snapshots=snapshots,
                lineage=lineage, resume=resume,
            )
        )
    finally:
        tracker.close()


def _set_up_process(job: Job, context: WorkerContext) -> None:
    """Threads, matrix precision and quiet libraries."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if context.device.type == "cuda" else "cpu")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed.*")
    torch.set_num_threads(job.threads)
    if context.device.type == "cuda":
        torch.cuda.set_device(context.device)
        torch.set_float32_matmul_precision("high")  # TF32 for the parts outside autocast, as the official code trains (elf.md A.8)
