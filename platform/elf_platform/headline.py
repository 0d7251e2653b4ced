"""What a finished run is judged by: its artefact's validation losses beside a unigram model's, its samples beside unigram samples."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from elf.artefact import Artefact
from elf.data.order import Int64
from elf.files import write_text
from elf.metrics.text import known_word_share, unigram_cross_entropy, unigram_entropy
from elf.metrics.tokens import words
from elf_platform.config import RunConfig
from elf_platform.data.manifest import Manifest
from elf_platform.data.progress import ProgressLine
from elf_platform.data.reader import RowReader
from elf_platform.evaluate.losses import artefact_losses
from elf_platform.evaluate.run_score import run_samples, score_run
from elf_platform.tracking import read_metrics
from elf_platform.train.loop import rows_per_pass
from elf_platform.train.snapshots import TRAJECTORY_POINTS, append_samples, decode, draw_samples, given_sources

WORD_SAMPLES = 32
"""Samples over which the share of known words is taken."""
CORPUS_ROWS = 200_000
"""Training rows whose words and token counts are taken, at most."""

Figures = dict[str, float | str]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Token counts and words of the prepared text."""

    train_counts_V: NDArray[np.int64]
    valid_counts_V: NDArray[np.int64]
    words: frozenset[str]


def read_corpus(data_folder: Path, vocab_size: int) -> Corpus:
    """Counts and words over the prepared rows (an even sample of very large data)."""
    counts, text_words = {}, set[str]()
    for split in ("train", "valid"):
        reader = RowReader(data_folder, split)
        chosen = np.linspace(0, max(len(reader) - 1, 0), min(len(reader), CORPUS_ROWS))
        rows: Int64 = np.unique(chosen.astype(np.int64))
        total = np.zeros(vocab_size, dtype=np.int64)
        for start in range(0, len(rows), 1024):
            batch = reader.read(rows[start : start + 1024])
            ids = batch.ids_BL[batch.valid_BL & ~batch.condition_BL]  # of pairs the targets: what is generated
            total += np.bincount(ids.numpy(), minlength=vocab_size)
            if split == "train":
                # One long text: a word cut by a row's end would otherwise count as two.
                text_words.update(words(reader.tokenizer.decode(ids.tolist())))
        counts[split] = total
    return Corpus(train_counts_V=counts["train"], valid_counts_V=counts["valid"], words=frozenset(text_words))


def valid_figures(artefact: Artefact, config: RunConfig, data_folder: Path, device: torch.device) -> Figures:
    """The artefact's own losses on the validation rows, with the draws that training validated with."""
    figures = artefact_losses(
        artefact, RowReader(data_folder, "valid"), count=config.train.valid_rows, seed=config.seed, device=device,
        micro_batch=min(rows_per_pass(config, config.train.workers), 64),
    )
    return {name: value for name, value in figures.items() if "/level/" not in name}


def sample_figures(
    artefact: Artefact, config: RunConfig, corpus: Corpus, run_folder: Path, step: int, device: torch.device, *, data_folder: Path
) -> Figures:
    """Samples and one trajectory for the report; the share of known words against unigram samples of the same length; the samples'
    generative perplexity by a tiny judge."""
    sizes, tokenizer = artefact.sizes, artefact.tokenizer
    many = replace(config.sample, count=max(WORD_SAMPLES, config.sample.count))
    given = given_sources(RowReader(data_folder, "valid"), many.count, codec=artefact.codec, device=device)
    with ProgressLine(f"sampling {many.count} rows", 1, unit="steps", digits=0) as line:
        samples = draw_samples(
            artefact.process, artefact.network, tokenizer, many, length=sizes.length, channels=sizes.channels, device=device,
            condition=given.condition if given else None, record=TRAJECTORY_POINTS, progress=line.reach,
        )
    texts = decode(tokenizer, samples.ids_BL)
    append_samples(run_folder, step, texts[: config.sample.count], config.sample, samples.nfe, given)
    if samples.trajectory:
        points = [{"t": t, "text": decode(tokenizer, ids_BL[:1])[0]} for t, ids_BL in samples.trajectory]
        settings = {"sampler": many.sampler, "steps": many.steps, "gamma": many.gamma, "guidance": many.guidance}
        write_text(run_folder / "trajectory.json", json.dumps({"seed": many.seed, "settings": settings, "points": points}))
    rng = np.random.default_rng(config.sample.seed)
    frequency_V = corpus.train_counts_V / max(corpus.train_counts_V.sum(), 1)
    unigram_BL = rng.choice(len(frequency_V), size=(many.count, sizes.target_length), p=frequency_V)
    unigram_texts = [tokenizer.decode(row) for row in unigram_BL.tolist()]
    rows = [[i for i in row if i != tokenizer.pad_id] for row in samples.ids_BL.tolist()]
    drawn = run_samples(
        artefact, config, texts, rows, nfe=samples.nfe, count=many.count, data_sha256=Manifest.load(data_folder).content_hash
    )
    return {
        **(
            score_run(artefact, config, drawn, run_folder, data_folder, targets=given.references if given else None)
            if config.train.judge != "none" else {}
        ),
        "sample/known_word_share": known_word_share(texts, corpus.words),
        "sample/known_word_share_unigram": known_word_share(unigram_texts, corpus.words),
        "sample/unigram_entropy": unigram_entropy(rows),
        "sample/nfe": float(samples.nfe),
        "sample/count": float(many.count),
    }


def training_figures(run_folder: Path) -> Figures:
    """Validation losses at initialisation, and speed, from the run's own log."""
    points = read_metrics(run_folder / "metrics.jsonl")
    figures: Figures = {}
    start = next((metrics for step, metrics in points if step == 0), {})
    figures |= {f"{name}_at_start": value for name, value in start.items() if name.startswith("valid/") and "/level/" not in name}
    speeds = [metrics["perf/tokens_per_second"] for _, metrics in points if "perf/tokens_per_second" in metrics]
    if speeds:
        figures["perf/tokens_per_second"] = float(np.median(speeds))
    return figures


def corpus_figures(corpus: Corpus) -> Figures:
    """The unigram model's cross-entropy in nats per token, the bar that any model must clear."""
    return {"valid/unigram_ce": unigram_cross_entropy(corpus.train_counts_V, corpus.valid_counts_V)}
