"""The training loop of one worker. Knows neither Ray nor DeepSpeed nor MLflow: the engine, the tracker and the world are arguments."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from elf.codecs import Codec
from elf.draws import Draws
from elf.metrics.flops import flops_per_row, peak_flops
from elf.processes import Process
from elf_platform.config import RunConfig
from elf_platform.tracking import Tracker
from elf_platform.train.checkpoint import (
    Checkpoint,
    CheckpointReader,
    commit,
    prepare_folder,
    prune,
    write_rank_file,
    writing_folder,
)
from elf_platform.train.context import WorkerContext
from elf_platform.train.engine import Engine
from elf_platform.train.feed import Feed, Rows, micro_batches, share_of
from elf_platform.train.meter import Meter
from elf_platform.train.snapshots import Snapshots
from elf_platform.train.validation import validate


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one worker needs to train; the driver's side of it is ``driver``, tests build it by hand."""

    config: RunConfig
    context: WorkerContext
    process: Process
    network: torch.nn.Module
    engine: Engine
    codec: Codec | None
    train_rows: Rows
    valid_rows: Rows | None
    tracker: Tracker
    snapshots: Snapshots | None  # main worker only
    lineage: dict[str, Any]  # goes into every checkpoint: resolved config, data fingerprint, code version, tracking run
    resume: Checkpoint | None = None

    @property
    def checkpoints(self) -> Path:
        return self.context.run_folder / "checkpoints"


def micro_batch_rows(config: RunConfig) -> int:
    """Rows of one forward pass on one worker."""
    return config.train.micro_batch or config.train.global_batch // config.train.workers


def train(job: Training) -> None:
    """Train from the resumed checkpoint, or from the start, to ``train.steps``; log, validate, sample and save on the way."""
    config, engine, context = job.config.train, job.engine, job.context
    first = _restore(job)
    share = share_of(config.global_batch, context.rank, context.world_size)
    feed = Feed(
        job.train_rows, seed=job.config.seed, global_batch=config.global_batch, share=share, first_step=first,
        last_step=config.steps,
    )
    flops = flops_per_row(job.process, job.network) * config.global_batch
    peak = peak_flops(context.device, config.precision) * context.world_size
    meter = Meter(job.process, engine, context.device, flops_per_step=flops, peak_flops=peak)
    if job.resume:
        meter.histogram += job.resume.state["time_counts"]
    if first == 0:
        _observe(job, 0)
    for step, batch in feed:
        _one_step(job, meter, step, batch, share)
        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            job.tracker.log(done, meter.point(feed.waited))
        if _due(done, config.valid_every, config.steps):
            _observe(job, done)
        if job.config.train.sample_every and done % config.sample_every == 0 and done < config.steps:
            _snapshot(job, done)
        if done % config.checkpoint_every == 0 or done == config.steps:
            save(job, done, meter)


def _due(done: int, every: int, last: int) -> bool:
    return done == last or (every > 0 and done % every == 0)


def _one_step(job: Training, meter: Meter, step: int, batch: Any, share: Any) -> None:
    """Forward and backward over this worker's micro-batches, then the update."""
    engine, device = job.engine, job.context.device
    size = micro_batch_rows(job.config)
    parts = list(micro_batches(batch, share, size))
    # The loss is divided by the count of the whole global batch, known before the first backward pass.
    counts = engine.all_reduce(torch.stack([job.process.count(batch), batch.length_B.sum().double()]).to(device)).tolist()
    for i, (part, rows) in enumerate(parts):
        part = part.to(device)
        draws = Draws(seed=job.config.seed, step=step, rows=rows, total=job.config.train.global_batch, device=device)
        drawn = job.process.draw(draws, part, job.codec.channels if job.codec else 0)
        state_BLC = job.codec.encode(part, getattr(drawn, "drop_condition_B", None)) if job.codec else None
        total, parts_P2, levels_K2 = engine.forward(part, state_BLC, drawn)
        engine.backward(total / max(counts[0], 1.0), last=i == len(parts) - 1)
        meter.add(parts_P2, levels_K2, job.process.times(drawn))
    meter.step_done(counts[0], counts[1], engine.step(step))


def _observe(job: Training, step: int) -> None:
    """Validation figures."""
    if job.valid_rows is None or not job.config.train.valid_rows:
        return
    figures = validate(
        job.process, job.engine, job.codec, job.valid_rows, job.context, count=job.config.train.valid_rows,
        micro_batch=micro_batch_rows(job.config), seed=job.config.seed,
    )
    job.tracker.log(step, figures)


def _snapshot(job: Training, step: int) -> None:
    """Samples of the moving average as it is now, made by the main worker."""
    weights = job.engine.gather_weights("ema")
    if weights is not None and job.snapshots is not None:
        job.snapshots.write(step, weights)


def _restore(job: Training) -> int:
    """Load state and average from the checkpoint (weights were loaded before the engine was built); the first step to do."""
    if job.resume is None:
        return 0
    updater = job.engine.updater
    CheckpointReader(job.resume).restore(updater.slices, updater.state())
    updater.optimizer.counters.update(job.resume.state["counters"])
    return job.resume.step


def save(job: Training, step: int, meter: Meter) -> None:
    """Write and commit the checkpoint of ``step``. A save that fails leaves the last good one and training goes on, except at
    the end, where it raises OSError."""
    engine, context, root = job.engine, job.context, job.checkpoints
    problem: str | None = None
    time_counts = meter.time_counts()
    if context.is_main:
        try:
            prepare_folder(root, step)
        except OSError as error:
            problem = str(error)
    engine.gather_objects(None)
    written: dict[str, Any] | str | None = problem
    if problem is None and (context.is_main or not engine.replicated):
        try:
            updater = engine.updater
            written = write_rank_file(writing_folder(root, step), context.rank, updater.slices, updater.state())
        except Exception as error:  # safetensors reports a full disk with its own exception type
            written = f"worker {context.rank}: {error}"
    everyone = engine.gather_objects(written)
    errors = [item for item in everyone if isinstance(item, str)]
    if context.is_main:
        if not errors:
            state = {**job.lineage, "counters": engine.updater.optimizer.counters, "time_counts": time_counts}
            try:
                commit(root, writing_folder(root, step), step, state, [item for item in everyone if item])
                prune(root, job.config.train.keep)
            except OSError as error:
                errors = [str(error)]
        if errors:
            shutil.rmtree(writing_folder(root, step), ignore_errors=True)
    errors = engine.gather_objects(errors)[0]
    if errors:
        message = f"The checkpoint of step {step} could not be written to {root}: {'; '.join(errors)}. The last good one is kept."
        if step == job.config.train.steps:
            raise OSError(f"{message} Free some disk space and run the same command again: it resumes from there.")
        if context.is_main:
            job.tracker.text("warning", message, step)
