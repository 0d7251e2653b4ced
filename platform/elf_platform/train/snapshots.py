"""Sample texts from weights, appended to the run's samples.jsonl; used during training and at its end."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elf.data.tokenizer import Tokenizer
from elf.draws import Draws
from elf.processes import Process, Samples
from elf.sampling.condition import Condition
from elf.sampling.config import SampleConfig

TRAJECTORY_POINTS = 8


def draw_samples(
    process: Process, network: torch.nn.Module, tokenizer: Tokenizer, config: SampleConfig, *, length: int, channels: int,
    device: torch.device, condition: Condition | None = None, record: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Samples:
    """``config.count`` rows; row i depends on (config.seed, i) alone. condition: of config.count rows."""
    network.eval()
    draws = Draws(seed=config.seed, step=0, rows=np.arange(config.count), total=config.count, device=device)
    return process.sample(
        network, draws, length=length, channels=channels, config=config, condition=condition, eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id, record=record, progress=progress,
    )


def decode(tokenizer: Tokenizer, ids_BL: Tensor) -> list[str]:
    """Texts of rows of ids."""
    return [tokenizer.decode(row) for row in ids_BL.tolist()]


class Snapshots:
    """Samples of the network at points of training. Holds a second copy of the network on the main worker."""

    def __init__(
        self, process: Process, build: Callable[[], torch.nn.Module], tokenizer: Tokenizer, config: SampleConfig, *,
        run_folder: Path, length: int, channels: int, device: torch.device, count: int = 4,
    ) -> None:
        self.process, self.tokenizer, self.run_folder = process, tokenizer, run_folder
        self.config = replace(config, count=min(count, config.count))
        self.length, self.channels, self.device, self._build = length, channels, device, build

    def write(self, step: int, weights: dict[str, Tensor]) -> None:
        """Sample with these weights and append the texts."""
        if not self.config.count:
            return
        network = self._build().to(self.device)
        network.load_state_dict(weights)
        samples = draw_samples(
            self.process, network, self.tokenizer, self.config, length=self.length, channels=self.channels, device=self.device
        )
        append_samples(self.run_folder, step, decode(self.tokenizer, samples.ids_BL), self.config, samples.nfe)


def append_samples(run_folder: Path, step: int, texts: list[str], config: SampleConfig, nfe: int) -> None:
    """One line per sample; a step that is sampled again after a resume replaces its earlier lines for readers, who keep the last."""
    settings: dict[str, Any] = asdict(config)
    with (run_folder / "samples.jsonl").open("a", encoding="utf-8") as handle:
        for index, text in enumerate(texts):
            line = {"step": step, "index": index, "seed": config.seed, "text": text, "nfe": nfe, "settings": settings}
            handle.write(json.dumps(line, ensure_ascii=False) + "\n")
