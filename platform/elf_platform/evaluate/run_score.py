"""The score record of a finished run's own samples, and its headline figures."""

from dataclasses import asdict
from pathlib import Path

import torch

from elf.artefact import CONFIG, Artefact
from elf.files import sha256_of
from elf_platform.config import RunConfig
from elf_platform.data.manifest import Manifest
from elf_platform.evaluate.compare import record_notes
from elf_platform.evaluate.judge import load_judge
from elf_platform.evaluate.metrics import Resampling
from elf_platform.evaluate.record import FILE, Facts, ScoreRecord, save_record
from elf_platform.evaluate.score import Measure, score
from elf_platform.evaluate.texts import Texts, prepared_texts, sampler_facts
from elf_platform.evaluate.tiny_judge import tiny_judge

REFERENCE_ROWS = 128
"""Validation rows that are scored beside the samples."""
SELF_BLEU_TEXTS = 32
"""As many as there are samples; the work grows with the square."""


def score_run(
    artefact: Artefact, config: RunConfig, samples: Texts, run_folder: Path, data_folder: Path, *, targets: list[str] | None = None
) -> dict[str, float | str]:
    """Score samples with the tiny judge of the run's data, beside real, shuffled and unigram text; the record goes to score.json.

    targets: one reference a sample, of conditional runs, for BLEU and ROUGE, which are 0 when all samples are empty. Returns figures named
    score/.... What cannot be scored costs its figures and never the run: score/protocol says why."""
    try:
        judge = tiny_judge(data_folder, config.storage, device=next(artefact.network.parameters()).device)
        figures = figures_of(_record(artefact, config, samples, run_folder, data_folder, targets, judge)) | {"score/judge": str(judge)}
    except (ValueError, ArithmeticError, OSError, RuntimeError, ImportError) as error:  # RuntimeError: out of memory, among others
        # A record of an earlier attempt is not of these samples.
        (run_folder / FILE).unlink(missing_ok=True)
        return {"score/protocol": f"not scored: {error}"}
    if targets is not None and Manifest.load(data_folder).valid.targets_cut:
        figures["score/protocol"] = f"{figures['score/protocol']}; references cut to {artefact.sizes.target_length - 1} tokens"
    return figures


def _record(
    artefact: Artefact, config: RunConfig, samples: Texts, run_folder: Path, data_folder: Path, targets: list[str] | None,
    judge_folder: Path,
) -> ScoreRecord:
    device = next(artefact.network.parameters()).device
    measure = Measure(
        judge=load_judge(str(judge_folder), device=device), threads=torch.get_num_threads(),
        resampling=Resampling(self_bleu_texts=SELF_BLEU_TEXTS),
    )
    reference = prepared_texts(data_folder, count=REFERENCE_ROWS) if Manifest.load(data_folder).valid.rows else None
    references = [[target] for target in targets] if targets is not None else None
    record = score(measure, samples, name=config.name, reference=reference, targets=references, with_controls=reference is not None)
    save_record(record, run_folder / FILE)
    return record


def run_samples(
    artefact: Artefact, config: RunConfig, texts: list[str], ids: list[list[int]], *, nfe: int, count: int, data_sha256: str
) -> Texts:
    """A run's samples as texts to score."""
    settings = asdict(config.sample) | {"count": count}
    sampling: Facts = {
        "process": artefact.process.kind, "weights": artefact.lineage["weights"], "settings": settings, "nfe": nfe,
        "seed": settings["seed"], **sampler_facts(artefact.process.kind, settings),
        "precision": config.train.precision, "compute_batch": count, "artefact": sha256_of(artefact.folder / CONFIG),
        "tokenizer": artefact.tokenizer.fingerprint, "data": data_sha256, "code_version": artefact.lineage["code_version"],
    }
    return Texts(
        kind="samples", path=str(artefact.folder), form=f"samples of at most {artefact.sizes.target_length} tokens", texts=texts, ids=ids,
        sampling=sampling, room=artefact.sizes.target_length if artefact.sizes.source_length else 0,
    )


def figures_of(record: ScoreRecord) -> dict[str, float | str]:
    """Headline figures of a record, and its protocol in words."""
    figures: dict[str, float | str] = {f"score/{name}": estimate.value for name, estimate in record.scores.items()}
    for name in ("gen_ppl", "bleu", "rougeL"):
        found = record.scores.get(name)
        if found is not None and found.low is not None and found.high is not None:
            figures |= {f"score/{name}_low": found.low, f"score/{name}_high": found.high}
    for row, scores in record.beside.items():
        figures |= {f"score/{name}_{row}": scores[name].value for name in ("gen_ppl", "entropy") if name in scores}
    return figures | {"score/protocol": protocol_words(record)}


def protocol_words(record: ScoreRecord) -> str:
    """How the figures were measured, in one line."""
    judge, protocol, subject = record.judge, record.protocol, record.subject
    first = "first token scored" if protocol["first"] else "first token unscored"
    end = {"elf": "first end-of-text scored", "once": "first end-of-text scored", "none": "end unscored"}[protocol["end"]]
    average = "micro-average" if protocol["average"] == "tokens" else "macro-average"
    return (
        f"judge {judge['name']} ({judge['precision']}), protocol {protocol['name']}: {first}, {end}, {average}; {subject['scored']} of "
        f"{subject['texts']} samples, at most {subject['tokens_at_most']} tokens" + "".join(f"; {note}" for note in record_notes(record))
    )
