"""Validation loss on a fixed set of rows with fixed draws: the same noise at every call and on any number of workers."""

import numpy as np
import torch

from elf.batch import Batch
from elf.codecs import Codec
from elf.data.order import derive_key
from elf.draws import Draws
from elf.processes import LEVELS, Process
from elf_platform.train.context import WorkerContext
from elf_platform.train.engine import Engine
from elf_platform.train.feed import Rows
from elf_platform.train.meter import loss_figures


def validate(
    process: Process, engine: Engine, codec: Codec | None, rows: Rows, context: WorkerContext, *, count: int, micro_batch: int,
    seed: int,
) -> dict[str, float]:
    """Figures named valid/...; all workers call it. Each worker runs the same number of equal micro-batches, the last ones filled
    up with rows of weight zero."""
    total = min(count, len(rows))
    size = min(micro_batch, -(-total // context.world_size))
    rounds = -(-total // (size * context.world_size))
    sums = torch.zeros(len(process.part_names) + LEVELS, 2, dtype=torch.float64, device=context.device)
    counted = torch.zeros((), dtype=torch.float64, device=context.device)
    channels = codec.channels if codec else 0
    for r in range(rounds):
        start = (r * context.world_size + context.rank) * size
        index = np.arange(start, start + size)
        batch = rows.read(np.minimum(index, total - 1)).to(context.device)
        batch = Batch(**{**vars(batch), "weight_B": torch.as_tensor(index < total, dtype=torch.float32, device=context.device)})
        draws = Draws(
            seed=derive_key("valid", seed) >> 1, step=0, rows=np.minimum(index, total - 1), total=total, device=context.device
        )
        drawn = process.draw(draws, batch, channels)
        state_BLC = codec.encode(batch, getattr(drawn, "drop_condition_B", None)) if codec else None
        _, parts_P2, levels_K2 = engine.evaluate(batch, state_BLC, drawn)
        sums += torch.cat([parts_P2, levels_K2])
        counted += process.count(batch)
    reduced = engine.all_reduce(torch.cat([sums.flatten(), counted[None]]))
    return loss_figures(process, "valid", reduced[:-1].view_as(sums), max(float(reduced[-1]), 1.0))
