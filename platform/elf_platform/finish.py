"""From the last checkpoint to what a run leaves: artefact, samples, headline figures, report."""

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elf.artefact import Columns, Sizes, load_artefact, save_artefact
from elf.codecs import load_codec
from elf.data.tokenizer import load_tokenizer
from elf.files import write_text
from elf.optim import trained_average
from elf_platform.data.manifest import Manifest
from elf_platform.headline import (
    Figures,
    corpus_figures,
    corpus_words,
    held_out_words,
    read_corpus,
    sample_figures,
    total_seconds,
    training_figures,
    valid_figures,
)
from elf_platform.identity import afterwards_hash
from elf_platform.train.checkpoint import Checkpoint, CheckpointReader, latest
from elf_platform.train.lineage import check_lineage
from elf_platform.train.worker import Job, initial_network


def finish(job: Job) -> Figures:
    """Export and judge a trained run; returns its headline figures, also left in summary.json. Runs on one machine, on a GPU if it
    has one. Calling it again does the same work and leaves the same files."""
    device = torch.device("cuda" if torch.cuda.is_available() and torch.cuda.device_count() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(max(len(os.sched_getaffinity(0)), 1))
    config, run_folder = job.config, job.run_folder
    checkpoint = latest(run_folder / "checkpoints")
    if checkpoint is None:
        raise ValueError(f"{run_folder / 'checkpoints'} holds no valid checkpoint, so there is nothing to export; train the run first")
    if checkpoint.step < config.train.steps:
        raise ValueError(
            f"the newest valid checkpoint of {run_folder} is of step {checkpoint.step} of {config.train.steps}; run the same command "
            "again: it trains the rest"
        )
    codec = load_codec(job.codec_folder) if job.codec_folder else None
    whose = {"data": job.data_fingerprint, "codec": codec.fingerprint if codec else None}
    check_lineage(checkpoint, whose, config)  # what was put there since training ended goes into no artefact
    tokenizer = load_tokenizer(job.data_folder / "tokenizer.json")
    lineage: dict[str, Any] = {
        "run": config.name,
        "step": checkpoint.step,
        "weights": "ema",
        "code_version": job.code_version,
        "data_sha256": job.data_fingerprint,
        "tokenizer_sha256": tokenizer.fingerprint,
    }
    folder = save_artefact(
        run_folder / "artefact", process=config.process, network_config=config.network,
        network_state=average_of(checkpoint, job, tokenizer.vocab_size),
        sizes=Sizes(
            vocab_size=tokenizer.vocab_size, channels=job.channels, length=config.data.length, source_length=config.data.source_length
        ),
        tokenizer=tokenizer,
        codec=codec, lineage=lineage, sample=config.sample,
        columns=Columns(source=config.data.source_column, text=config.data.text_column) if config.data.source_column else None,
        overwrite=True,
    )
    _write_times(run_folder, checkpoint.state["time_counts"])
    artefact = load_artefact(folder, device=device, precision=config.train.precision)
    manifest = Manifest.load(job.data_folder)
    corpus = read_corpus(job.data_folder, tokenizer.vocab_size)
    figures: Figures = {
        "run": config.name,
        "steps": float(checkpoint.step),
        "parameters": float(sum(p.numel() for p in artefact.network.parameters())),
        **training_figures(run_folder),
        **valid_figures(artefact, config, job.data_folder, device),
        **corpus_figures(corpus),
        **sample_figures(artefact, config, corpus, run_folder, checkpoint.step, device, data_folder=job.data_folder),
        "artefact": str(folder),
        "made_with": afterwards_hash(config),
        "checkpoint": str(checkpoint.folder),
        "data": str(job.data_folder),
        "corpus": corpus_words(manifest, config.data.paths),
        "held_out": held_out_words(manifest),
        "time/total_seconds": total_seconds(run_folder, time.time()),
    }
    write_text(run_folder / "summary.json", json.dumps(figures, indent=1))
    return figures


def average_of(checkpoint: Checkpoint, job: Job, vocab_size: int) -> dict[str, Tensor]:
    """The moving average that a run exports, without the initial weights that a short run leaves in it."""
    average, initial = CheckpointReader(checkpoint).whole("ema"), initial_network(job, vocab_size).state_dict()
    return trained_average(average, initial, decay=job.config.optim.ema_decay, updates=checkpoint.state["counters"]["step"])


def _write_times(run_folder: Path, counts: list[float]) -> None:
    if sum(counts):
        edges = [i / len(counts) for i in range(len(counts) + 1)]
        write_text(run_folder / "times.json", json.dumps({"edges": edges, "counts": [int(c) for c in counts]}))
