"""What a training worker knows of the world; the driver builds it from Ray, tests build it by hand."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


def _no_report(metrics: dict[str, float]) -> None:
    """Reports go nowhere."""


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """One worker among ``world_size``; ``run_folder`` is shared storage that every worker sees."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")
    run_folder: Path
    report: Callable[[dict[str, float]], None] = _no_report  # a barrier over all ranks under Ray: call at checkpoints only

    @property
    def is_main(self) -> bool:
        return self.rank == 0
