"""A judge that is trained in seconds on a run's own rows, so that every run can say how likely its samples are next to real text.

It knows the words and short phrases of its corpus and little else: its figures compare runs on the same data, nothing more.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from elf.artefact import CONFIG, Sizes, save_artefact
from elf.batch import Batch
from elf.data.order import derive_key, rows_of_step
from elf.nn.config import NetworkConfig
from elf.optim import OptimConfig, trained_average
from elf.processes import Autoregressive
from elf_platform.data.progress import ProgressLine
from elf_platform.data.reader import RowReader
from elf_platform.lock import exclusive
from elf_platform.train.engine import PlainEngine
from elf_platform.train.module import ProcessModule
from elf_platform.version import code_version

JUDGES = "judges"
"""Folder of the storage that holds them."""


@dataclass(frozen=True, kw_only=True)
class TinyJudge:
    """Its size and training; part of its name, so that a change makes another judge."""

    network: NetworkConfig = NetworkConfig(hidden=128, depth=2, heads=4)
    steps: int = 150
    step_tokens: int = 512
    """Tokens of a step; rows are read until these are reached."""
    lr: float = 8e-3
    ema_decay: float = 0.98
    seed: int = 0


def tiny_judge(
    data_folder: Path, storage: Path, settings: TinyJudge | None = None, *, device: torch.device, log: Callable[[str], None] = print
) -> Path:
    """The artefact of the judge for this data under ``storage``/judges; trained once and found again afterwards."""
    settings = settings or TinyJudge()
    rows = RowReader(data_folder, "train")
    identity = [rows.manifest.content_hash, dataclasses.asdict(settings), "without initial weights"]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    folder = storage / JUDGES / f"tiny-{key}"
    # Another run on the same data may be training it right now.
    with exclusive(folder.with_name(f".{folder.name}.training"), "the training of this judge", wait=log):
        if not (folder / CONFIG).is_file():
            _train(rows, settings, folder, device)
    return folder


def _train(rows: RowReader, settings: TinyJudge, folder: Path, device: torch.device) -> None:
    process, sizes = Autoregressive(), Sizes(vocab_size=rows.tokenizer.vocab_size, channels=0, length=rows.length)
    torch.manual_seed(derive_key("judge", settings.seed) >> 1)
    network = process.build_network(settings.network, vocab_size=sizes.vocab_size, channels=0, length=sizes.length).to(device)
    optim = OptimConfig(
        name="muon", lr=settings.lr, warmup_steps=min(20, settings.steps // 4), decay="cosine", final_lr_ratio=0.05,
        ema_decay=settings.ema_decay,
    )
    initial = {name: value.clone() for name, value in network.state_dict().items()}
    engine = PlainEngine(ProcessModule(process, network), optim, total_steps=settings.steps)
    count = max(settings.step_tokens // rows.length, 1)
    with ProgressLine("training a tiny judge", settings.steps, unit="steps", digits=0) as line:
        for step in range(settings.steps):
            index = rows_of_step(step, np.arange(count), global_batch=count, rows=len(rows), seed=settings.seed)
            batch = targets_alone(rows.read(index), rows.pad_id).to(device)
            loss, _, _ = engine.forward(batch, None, None)
            engine.backward(loss / process.count(batch).clamp_min(1).float(), last=True)
            engine.step(step)
            line.advance(1)
    average = engine.gather_weights("ema")
    assert average is not None
    state = trained_average(average, initial, decay=settings.ema_decay, updates=settings.steps)
    lineage = {
        "run": folder.name, "step": settings.steps, "weights": "ema", "code_version": code_version(),
        "data_sha256": rows.manifest.content_hash, "tokenizer_sha256": rows.tokenizer.fingerprint,
    }
    save_artefact(
        folder, process=process, network_config=settings.network, network_state=state, sizes=sizes, tokenizer=rows.tokenizer, codec=None,
        lineage=lineage,
    )


def targets_alone(batch: Batch, pad_id: int) -> Batch:
    """Rows without their conditions: what follows is moved to the head, as generated texts are judged without their sources."""
    if not bool(batch.cond_length_B.any()):
        return batch
    positions_L = batch.positions_L
    moved_BL = (positions_L + batch.cond_length_B[:, None]).clamp_max(len(positions_L) - 1)
    length_B = batch.length_B - batch.cond_length_B
    ids_BL = batch.ids_BL.gather(1, moved_BL).masked_fill(positions_L >= length_B[:, None], pad_id)
    return Batch.of_ids(ids_BL, length_B)
