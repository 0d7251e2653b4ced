"""Sample texts from weights, appended to the run's samples.jsonl; used during training and at its end."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elf.codecs import Codec
from elf.data.order import Int64, Permutation, derive_key
from elf.data.tokenizer import Tokenizer
from elf.draws import Draws
from elf.files import append_lines
from elf.optim import trained_average
from elf.processes import Process, Samples
from elf.sampling.condition import Condition, encode_condition
from elf.sampling.config import SampleConfig
from elf_platform.data.reader import RowReader

TRAJECTORY_POINTS = 8


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the samples of a conditional run start from: rows that were held out."""

    condition: Condition
    sources: list[str]
    references: list[str]
    """The targets that the rows hold."""


def given_sources(rows: RowReader, count: int, *, codec: Codec | None, device: torch.device) -> Given | None:
    """The sources of ``count`` rows in a fixed random order (corpora may be sorted), again from its start where there are fewer; None for
    data without pairs."""
    data = rows.manifest.data
    if not data.source_column or not count:
        return None
    batch = rows.read(shown_rows(count, len(rows)))
    tokenizer = rows.tokenizer
    places = list(zip(batch.ids_BL.tolist(), batch.cond_length_B.tolist(), batch.length_B.tolist(), strict=True))
    tokens = [ids[:source] for ids, source, _ in places]
    condition = encode_condition(
        tokens, length=data.length, target_length=data.length - data.source_length, pad_id=tokenizer.pad_id, codec=codec, device=device
    )
    references = [tokenizer.decode(ids[source:length]) for ids, source, length in places]
    return Given(condition=condition, sources=[tokenizer.decode(ids) for ids in tokens], references=references)


def shown_rows(count: int, total: int) -> Int64:
    """``count`` of ``total`` rows: all of them once, then again. A smaller count gives the start of a larger one's."""
    return Permutation(total, derive_key(0, "shown sources"))(np.arange(count) % total)


def draw_samples(
    process: Process, network: torch.nn.Module, tokenizer: Tokenizer, config: SampleConfig, *, length: int, channels: int,
    device: torch.device, condition: Condition | None = None, record: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Samples:
    """``config.count`` rows; row i depends on (config.seed, i) and row i of ``condition`` alone."""
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
        run_folder: Path, length: int, channels: int, device: torch.device, count: int = 4, rows: RowReader | None = None,
        codec: Codec | None = None,
    ) -> None:
        """build: the network with its initial weights. rows, codec: where a conditional run takes its sources, and what encodes them."""
        self.process, self.tokenizer, self.run_folder = process, tokenizer, run_folder
        self.config = replace(config, count=min(count, config.count))
        self.length, self.channels, self.device, self._build = length, channels, device, build
        self.given = given_sources(rows, self.config.count, codec=codec, device=device) if rows is not None else None

    def write(self, step: int, average: dict[str, Tensor], *, decay: float, updates: int) -> None:
        """Sample with this moving average of so many updates, and append the texts."""
        if not self.config.count:
            return
        network = self._build()
        network.load_state_dict(trained_average(average, network.state_dict(), decay=decay, updates=updates))
        network.to(self.device)
        samples = draw_samples(
            self.process, network, self.tokenizer, self.config, length=self.length, channels=self.channels, device=self.device,
            condition=self.given.condition if self.given else None,
        )
        append_samples(self.run_folder, step, decode(self.tokenizer, samples.ids_BL), self.config, samples.nfe, self.given)


def append_samples(
    run_folder: Path, step: int, texts: list[str], config: SampleConfig, nfe: int, given: Given | None = None
) -> None:
    """One line per sample, with source and reference in a conditional run; a step that is sampled again after a resume replaces its earlier
    lines for readers, who keep the last."""
    settings: dict[str, Any] = asdict(config)
    lines = []
    for index, text in enumerate(texts):
        line: dict[str, Any] = {"step": step, "index": index, "seed": config.seed, "text": text, "nfe": nfe, "settings": settings}
        if given is not None:
            line |= {"source": given.sources[index], "reference": given.references[index]}
        lines.append(json.dumps(line, ensure_ascii=False))
    append_lines(run_folder / "samples.jsonl", lines)
