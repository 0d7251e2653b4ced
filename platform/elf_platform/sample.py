"""Text from an artefact, on this machine."""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from elf.artefact import load_artefact
from elf.sampling.config import SampleConfig
from elf_platform.train.snapshots import decode, draw_samples


@dataclass(frozen=True, kw_only=True)
class SampleCommand(SampleConfig):
    """Draw text from a trained artefact and print it."""

    artefact: Annotated[Path, tyro.conf.Positional]
    """Folder of the artefact: the artefact folder of a run, or what import_elf made."""


def sample(command: SampleCommand) -> list[str]:
    """Print the texts and say how they were made; sample i depends on (seed, i) alone."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    artefact = load_artefact(command.artefact.expanduser(), device=device)
    config = SampleConfig(**{f.name: getattr(command, f.name) for f in dataclasses.fields(SampleConfig)})
    columns = (TextColumn("sampling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sampling", total=config.steps)
        samples = draw_samples(
            artefact.process, artefact.network, artefact.tokenizer, config, length=artefact.sizes.length,
            channels=artefact.sizes.channels, device=device,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    texts = decode(artefact.tokenizer, samples.ids_BL)
    for index, text in enumerate(texts):
        sys.stdout.write(f"[{index}] {text}\n\n")
    sys.stderr.write(f"{len(texts)} samples, {samples.nfe} network evaluations each (NFE); {config}\n")
    return texts
