"""What a finished run is judged by: its artefact's validation losses beside a unigram model's, its samples beside unigram samples."""

import itertools
import json
import math
from collections.abc import Sequence
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
from elf_platform.sampling.settings import settings_words
from elf_platform.tracking import read_events, read_metrics
from elf_platform.tracking.journal import METRICS_FILE, read_lines
from elf_platform.train.loop import rows_per_pass
from elf_platform.train.snapshots import TRAJECTORY_POINTS, append_samples, decode, draw_samples, given_sources

WORD_SAMPLES = 32
"""Samples over which the share of known words is taken."""
CORPUS_ROWS = 200_000
"""Training rows whose words and token counts are taken, at most."""

ENOUGH_ROWS = 64
"""Held-out rows from which figures over them say something: a loss per token is then known to a few per cent."""
MOST_HELD_OUT = 0.2

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
    """The artefact's own losses on the validation rows, with the draws that training validated with; none where it did not validate."""
    if not config.train.valid_rows:
        return {}
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
        # Of the first sample that has text: one that ends at its first place shows nothing.
        index = next((i for i, text in enumerate(texts) if text.strip()), 0)
        points = [{"t": t, "text": decode(tokenizer, ids_BL[index : index + 1])[0]} for t, ids_BL in samples.trajectory]
        settings = {"sampler": many.sampler, "steps": many.steps, "gamma": many.gamma, "guidance": many.guidance}
        write_text(run_folder / "trajectory.json", json.dumps({"seed": many.seed, "index": index, "settings": settings, "points": points}))
    rng = np.random.default_rng(config.sample.seed)
    frequency_V = corpus.train_counts_V / max(corpus.train_counts_V.sum(), 1)
    unigram_BL = rng.choice(len(frequency_V), size=(many.count, sizes.target_length), p=frequency_V)
    unigram_texts = [tokenizer.decode(row) for row in unigram_BL.tolist()]
    rows = [[i for i in row if i != tokenizer.pad_id] for row in samples.ids_BL.tolist()]
    drawn = run_samples(
        artefact, config, texts, rows, nfe=samples.nfe, count=many.count, data_sha256=Manifest.load(data_folder).content_hash
    )
    figures: Figures = {
        **(
            score_run(artefact, config, drawn, run_folder, data_folder, targets=given.references if given else None)
            if config.train.judge != "none" else {}
        ),
        "sample/known_word_share": known_word_share(texts, corpus.words),
        "sample/known_word_share_unigram": known_word_share(unigram_texts, corpus.words),
        "sample/unigram_entropy": unigram_entropy(rows),
        "sample/nfe": float(samples.nfe),
        "sample/count": float(many.count),
        "sample/settings": settings_words(many, artefact.process.kind),
        **empty_figures(texts, rows),
    }
    # What is not defined (of samples without a word) is no figure, and no number that JSON knows.
    return {name: value for name, value in figures.items() if isinstance(value, str) or math.isfinite(value)}


def empty_figures(texts: Sequence[str], rows: Sequence[Sequence[int]]) -> Figures:
    """How many samples are empty, and why; rows: their tokens."""
    at_once = sum(not row for row in rows)
    blank = sum(not text.strip() for text in texts) - at_once
    why = [f"{at_once} end at the first token"] * (at_once > 0) + [f"{blank} hold no visible character"] * (blank > 0)
    return {"sample/empty": float(at_once + blank), **({"sample/empty_why": ", ".join(why)} if why else {})}


def training_figures(run_folder: Path) -> Figures:
    """Validation losses at initialisation, speed, memory and time, from the run's own log."""
    points = read_metrics(run_folder / "metrics.jsonl")
    figures: Figures = {}
    start = next((metrics for step, metrics in points if step == 0), {})
    figures |= {f"{name}_at_start": value for name, value in start.items() if name.startswith("valid/") and "/level/" not in name}
    speeds = [metrics["perf/tokens_per_second"] for _, metrics in points if "perf/tokens_per_second" in metrics]
    if speeds:
        figures["perf/tokens_per_second"] = float(np.median(speeds))
    memory = [metrics["perf/memory_gb"] for _, metrics in points if "perf/memory_gb" in metrics]
    if memory:
        figures["perf/peak_memory_gb"] = max(memory)
    seconds, before = 0.0, 0
    for step, metrics in points:
        if "perf/step_seconds" in metrics:
            seconds, before = seconds + metrics["perf/step_seconds"] * (step - before), step
    return figures | {"time/training_seconds": seconds}


def total_seconds(run_folder: Path, now: float) -> float:
    """Time from the run's first start to ``now``, without the waits between a start that ended and the next."""
    moments = [float(line["time"]) for _, line in read_lines(run_folder / METRICS_FILE) if isinstance(line.get("time"), int | float)]
    events = read_events(run_folder)
    moments = sorted([*moments, *(event.time for event in events), now])
    starts = sorted(event.time for event in events if event.kind == "preflight") or moments[:1]
    total = 0.0
    for start, end in itertools.pairwise([*starts, math.inf]):
        total += max((moment for moment in moments if start <= moment < end), default=start) - start
    return total


def held_out_words(manifest: Manifest) -> str:
    """How much was held out, and whether that is enough to say something."""
    rows, all_rows = manifest.valid.rows, manifest.valid.rows + manifest.train.rows
    said = f"{rows:,} rows of {manifest.valid.documents:,} {'pairs' if manifest.data.source_column else 'documents'}"
    if rows >= ENOUGH_ROWS:
        return said
    share = ENOUGH_ROWS / max(all_rows, 1)
    way = "give more text"
    if share <= MOST_HELD_OUT:
        way = f"--data.valid_fraction {math.ceil(share * 100) / 100:g} holds out about {ENOUGH_ROWS}"
    return f"{said}, which is few: validation figures and scores of so little text are rough; {way}"


def corpus_figures(corpus: Corpus) -> Figures:
    """The unigram model's cross-entropy in nats per token, the bar that any model must clear."""
    return {"valid/unigram_ce": unigram_cross_entropy(corpus.train_counts_V, corpus.valid_counts_V)}


def corpus_words(manifest: Manifest, paths: Sequence[str]) -> str:
    """Which text it was: its name, size, and where it came from."""
    what = "pairs" if manifest.data.source_column else "documents"
    size = f"{manifest.read.documents:,} {what}, {manifest.train.tokens:,} training tokens"
    return f"{manifest.name}: {size}" + (f", from {' '.join(paths)}" if paths else "")
