"""What an artefact scores by itself on prepared rows: its losses by noise level, the accuracy of its decoder, its likelihood."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from elf.artefact import CONFIG, Artefact
from elf.files import sha256_of
from elf.metrics.bootstrap import Columns, Estimate, estimate
from elf.metrics.decoder import decoder_hits
from elf.nn.denoiser import Denoiser
from elf.optim import OptimConfig
from elf.processes import Autoregressive
from elf_platform.data.reader import RowReader
from elf_platform.evaluate.metrics import Resampling
from elf_platform.evaluate.record import NO_JUDGE, NO_REFERENCE, NOT_SAMPLED, REQUIRED, Facts, ScoreRecord, Scores
from elf_platform.evaluate.texts import given
from elf_platform.train.context import WorkerContext
from elf_platform.train.engine import PlainEngine
from elf_platform.train.feed import Rows
from elf_platform.train.module import ProcessModule
from elf_platform.train.validation import validate
from elf_platform.version import code_version

ROWS = 512
MICRO_BATCH = 32
DECODER_GUIDANCE = 1.0
"""Self-conditioning scale that the decoder's accuracy is measured with."""


def artefact_losses(
    artefact: Artefact, rows: Rows, *, count: int, micro_batch: int, seed: int, device: torch.device
) -> dict[str, float]:
    """An artefact's losses on the first ``count`` rows, as training validates them, with the same draws."""
    engine = PlainEngine(ProcessModule(artefact.process, artefact.network), OptimConfig(), total_steps=1)
    return validate(
        artefact.process, engine, artefact.codec, rows, WorkerContext(run_folder=artefact.folder, device=device), count=count,
        micro_batch=micro_batch, seed=seed,
    )


def artefact_scores(
    artefact: Artefact, rows: RowReader, *, count: int = ROWS, seed: int = 0, device: torch.device, resampling: Resampling
) -> Scores:
    """Named scores on the first ``count`` rows: flow, decoder_ce or ce and their levels as training validates them, with fixed draws;
    decoder_accuracy; nll, in nats per token, of a process that has an exact one."""
    count = min(count or len(rows), len(rows))
    figures = artefact_losses(artefact, rows, count=count, micro_batch=MICRO_BATCH, seed=seed, device=device)
    scores = {name.removeprefix("valid/"): Estimate(value=value, count=count) for name, value in figures.items()}
    if isinstance(artefact.process, Autoregressive):
        scores["nll"] = scores["ce"]
    if isinstance(artefact.network, Denoiser) and artefact.codec is not None:
        scores["decoder_accuracy"] = _decoder_accuracy(artefact, rows, count, device, resampling)
    return scores


def _decoder_accuracy(artefact: Artefact, rows: RowReader, count: int, device: torch.device, resampling: Resampling) -> Estimate:
    hits = []
    assert artefact.codec is not None
    artefact.network.eval()
    for start in range(0, count, MICRO_BATCH):
        batch = rows.read(np.arange(start, min(start + MICRO_BATCH, count))).to(device)
        state_BLC = artefact.codec.encode(batch, None)
        hits.append(decoder_hits(artefact.network, batch, state_BLC, guidance=DECODER_GUIDANCE).cpu().numpy())

    def share(sums_K: Columns) -> float:
        return float(sums_K[0] / max(sums_K[1], 1.0))

    return estimate(np.concatenate(hits), share, resamples=resampling.resamples, seed=resampling.seed)


def check_data(artefact: Artefact, rows: RowReader) -> None:
    """ValueError when the rows are of another tokenizer or length than the artefact's."""
    if artefact.tokenizer.fingerprint != rows.manifest.tokenizer:
        raise ValueError(
            f"the rows in {rows.folder} were made with another tokenizer ({rows.manifest.tokenizer[:12]}) than the artefact "
            f"{artefact.folder} has ({artefact.tokenizer.fingerprint[:12]}); give the data that it was trained on"
        )
    if artefact.sizes.length != rows.length:
        raise ValueError(
            f"the rows in {rows.folder} have {rows.length} tokens, but the artefact {artefact.folder} takes {artefact.sizes.length}; give "
            "data that was prepared for it"
        )


def score_artefact(
    artefact: Artefact, data_folder: Path, *, name: str, count: int, seed: int, device: torch.device, precision: str, resampling: Resampling
) -> ScoreRecord:
    """The record of an artefact on the validation rows of prepared data. Raises ValueError when the two do not belong together."""
    rows = RowReader(data_folder, "valid")
    if not len(rows):
        raise ValueError(f"{data_folder} holds no validation rows; prepare it with data.valid_fraction above 0")
    check_data(artefact, rows)
    scores = artefact_scores(artefact, rows, count=count, seed=seed, device=device, resampling=resampling)
    scored = min(count or len(rows), len(rows))
    subject: Facts = {
        "kind": "artefact", "path": str(artefact.folder), "sha256": sha256_of(artefact.folder / CONFIG),
        "form": f"valid rows of {rows.length} tokens ({rows.manifest.name})", "texts": len(rows), "empty": 0, "scored": scored,
        "truncated": 0, "tokens_at_most": rows.length,
    }
    lineage = artefact.lineage
    sampling = given(NOT_SAMPLED) | {
        "process": artefact.process.kind, "weights": lineage.get("weights"), "artefact": subject["sha256"], "precision": precision,
        "tokenizer": artefact.tokenizer.fingerprint, "data": rows.manifest.content_hash, "code_version": lineage.get("code_version"),
        "seed": seed,
    }
    protocol = {
        "name": "validation rows with fixed draws", "first": True, "end": "as prepared", "average": "tokens",
        "reference_sha256": NO_REFERENCE, "references_sha256": NO_REFERENCE, "decoder_guidance": DECODER_GUIDANCE,
        **dataclasses.asdict(resampling),
    }
    # The model judges itself: what it ran on moves the figures as a judge's does.
    judge = dict.fromkeys(REQUIRED["judge"], NO_JUDGE) | {
        "device": device.type, "threads": torch.get_num_threads(), "torch": torch.__version__, "precision": precision,
        "batch_tokens": MICRO_BATCH * rows.length,
    }
    return ScoreRecord(
        name=name, subject=subject, sampling=sampling, judge=judge, protocol=protocol, scores=scores, code_version=code_version(),
    )
