"""A small training job on text rows that are made here, with everything real but Ray."""

from pathlib import Path
from typing import Any

import torch

from elf.batch import Batch
from elf.codecs import TableConfig
from elf.data.order import Int64
from elf.nn.config import NetworkConfig
from elf.optim import OptimConfig
from elf.processes import EmbeddedFlow, Process
from elf_platform.config import DataConfig, EngineConfig, RunConfig, TrainConfig
from elf_platform.tracking import RunHandle, start_tracker
from elf_platform.train.checkpoint import latest
from elf_platform.train.context import WorkerContext
from elf_platform.train.engine import build_engine
from elf_platform.train.feed import passes
from elf_platform.train.loop import Training
from elf_platform.train.module import ProcessModule
from elf_platform.train.worker import Job, initial_network

VOCAB, LENGTH, ROWS = 31, 12, 50


class MadeRows:
    """Rows of a first-order Markov text: something a small model can learn."""

    def __init__(self, count: int = ROWS, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        follow = torch.randint(0, VOCAB, (VOCAB, 3), generator=torch.Generator().manual_seed(99))
        ids = [torch.randint(0, VOCAB, (count,), generator=generator)]
        for _ in range(LENGTH - 1):
            ids.append(follow[ids[-1], torch.randint(0, 3, (count,), generator=generator)])
        self.ids, self.lengths = torch.stack(ids, 1), torch.randint(6, LENGTH + 1, (count,), generator=generator)
        self.read_rows: list[int] = []

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, rows: Int64) -> Batch:
        self.read_rows += rows.tolist()
        index = torch.as_tensor(rows)
        return Batch.of_ids(self.ids[index], self.lengths[index])


def small_config(
    process: Process | None = None, *, engine: EngineConfig | None = None, optimiser: str = "muon", dropout: float = 0.0, **train: Any
) -> RunConfig:
    """Eight steps of eight rows."""
    settings = {"steps": 8, "global_batch": 8, "log_every": 2, "valid_every": 4, "valid_rows": 10, "checkpoint_every": 4} | train
    return RunConfig(
        name="small", process=process or EmbeddedFlow(), codec=TableConfig(channels=6),
        data=DataConfig(length=LENGTH),
        network=NetworkConfig(hidden=32, depth=2, heads=2, bottleneck=8, prefix_tokens=2, dropout=dropout),
        optim=OptimConfig(name=optimiser, lr=5e-3, warmup_steps=2, ema_decay=0.9),
        train=TrainConfig(**settings), engine=engine or EngineConfig(kind="plain"),
    )


def build_training(config: RunConfig, run_folder: Path, *, context: WorkerContext | None = None, resume: bool = True) -> Training:
    """A training job on made rows; resumes from the run folder's newest valid checkpoint."""
    run_folder.mkdir(parents=True, exist_ok=True)
    context = context or WorkerContext(run_folder=run_folder)
    process = config.process
    codec = config.codec.build(vocab_size=VOCAB) if process.needs_codec else None
    handle = RunHandle(kind="jsonl")
    job = Job(
        config=config, run_folder=run_folder, data_folder=run_folder, data_fingerprint="made", codec_folder=None,
        channels=6, threads=1, tracking=handle, code_version="test",
    )
    checkpoint = latest(run_folder / "checkpoints") if resume else None
    network = initial_network(job, VOCAB, resume=checkpoint)
    engine = build_engine(
        config.engine_kind, ProcessModule(process, network), config.optim, config.engine, context,
        total_steps=config.train.steps,
        accumulation=passes(config.train.global_batch, context.world_size, config.train.micro_batch),
    )
    return Training(
        config=config, context=context, process=process, network=network, engine=engine, codec=codec, train_rows=MadeRows(),
        valid_rows=MadeRows(20, seed=1), tracker=start_tracker(handle if context.is_main else RunHandle(kind="null"), run_folder),
        snapshots=None, lineage={"data": "made"}, resume=checkpoint,
    )
