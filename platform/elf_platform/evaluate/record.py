"""The score record: figures with everything that somebody else needs to get them again. One that lacks any of it is refused."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elf.files import write_text
from elf.metrics.bootstrap import Estimate

FORMAT = 1
"""Version of the record."""
FILE = "score.json"

Scores = dict[str, Estimate]
Facts = dict[str, Any]
Remarks = dict[str, str]
"""By the name of a score: why it is not defined, or over which texts it was taken."""

GIVEN_TEXT = "given text"
"""Stands where a fact of sampling has no meaning: nobody sampled this text."""
NOT_SAMPLED = "not sampled"
NO_JUDGE = "no judge"
NO_REFERENCE = "none"

REQUIRED: dict[str, tuple[str, ...]] = {
    "subject": ("kind", "path", "sha256", "form", "texts", "empty", "scored", "truncated", "tokens_at_most"),
    "sampling": (
        "process", "weights", "sampler", "grid", "steps", "guidance", "settings", "nfe", "seed", "precision", "compute_batch", "artefact",
        "tokenizer", "data", "code_version",
    ),
    "judge": (
        "name", "kind", "weights_sha256", "tokenizer_sha256", "vocab_size", "length", "precision", "device", "torch", "batch_tokens",
        "threads",
    ),
    "protocol": ("name", "first", "end", "average", "resamples", "seed", "self_bleu_texts", "reference_sha256", "references_sha256"),
}
"""Facts of a complete record, by group; none may be missing, null or empty."""


@dataclass(frozen=True, kw_only=True)
class ScoreRecord:
    """One subject (samples, a text or an artefact) and what it scored."""

    format: int = FORMAT
    name: str
    subject: Facts
    """What was scored, its hash, and how many texts were there, empty, scored and cut."""
    sampling: Facts
    """Where sampled text comes from; GIVEN_TEXT or NOT_SAMPLED where it does not apply."""
    judge: Facts
    protocol: Facts
    scores: Scores
    beside: dict[str, Scores] = field(default_factory=dict)
    """Other texts scored the same way, for scale: reference, shuffled, unigram."""
    beside_subjects: dict[str, Facts] = field(default_factory=dict)
    """Their paths, hashes and counts."""
    remarks: Remarks = field(default_factory=dict)
    """Of scores that are not there, or not of all texts; those of other texts stand under "reference.gen_ppl" and so on."""
    code_version: str

    def facts(self) -> dict[str, Any]:
        """All facts by dotted name."""
        return {f"{group}.{key}": value for group in REQUIRED for key, value in getattr(self, group).items()}


def missing(record: ScoreRecord) -> list[str]:
    """Dotted names of what a complete record has and this one lacks."""
    lacks = [
        f"{group}.{key}" for group, keys in REQUIRED.items() for key in keys if getattr(record, group).get(key) in (None, "", "unknown")
    ]
    lacks += [name for name in ("name", "code_version") if not getattr(record, name)]
    if not record.scores:
        lacks.append("scores" + "".join(f" ({name} is {remark})" for name, remark in record.remarks.items()))
    for group, scores in {"scores": record.scores, **{f"beside.{row}": beside for row, beside in record.beside.items()}}.items():
        lacks += [f"{group}.{name}" for name, score in scores.items() if not _is_finite(score)]
    return lacks


def _is_finite(score: Estimate) -> bool:
    return all(math.isfinite(value) for value in (score.value, score.low, score.high) if value is not None)


def check_complete(record: ScoreRecord, where: str) -> None:
    """ValueError that names what the record lacks."""
    if lacks := missing(record):
        raise ValueError(
            f"{where} is no complete score record, so its figures could not be reproduced: it lacks {', '.join(lacks)}. Evaluate again "
            "with what was missing given; nothing was written"
        )


def record_json(record: ScoreRecord) -> str:
    """The record as text; the same record gives the same bytes."""
    return json.dumps(dataclasses.asdict(record), indent=1, ensure_ascii=False) + "\n"


def save_record(record: ScoreRecord, path: Path) -> Path:
    """Write a record whole or not at all; ValueError when it is incomplete."""
    check_complete(record, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, record_json(record))
    return path


def place_of(record: ScoreRecord, folder: Path) -> Path:
    """Where a record goes in ``folder`` by default: score.json, or score-KEY.json, KEY standing for its facts, when score.json was measured
    in another way. The same measurement has the same place; score.json of samples that were replaced or extended since is given up."""
    own, first = folder / f"score-{facts_key(record)[:8]}.json", folder / FILE
    if own.is_file() or not first.is_file():
        return own if own.is_file() else first
    try:
        there = load_record(first)
    except ValueError:  # broken, or of another version: not ours to replace
        return own
    outdated = there.sampling.get("samples_sha256") != record.sampling.get("samples_sha256")
    return first if outdated or facts_key(there) == facts_key(record) else own


def facts_key(record: ScoreRecord) -> str:
    """16 hexadecimal digits over what was measured and how, wherever it lies."""
    facts = {name: value for name, value in record.facts().items() if name != "subject.path"}
    # Through JSON, where tuples of settings become the lists that a loaded record has.
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def load_record(path: Path) -> ScoreRecord:
    """A record from its file, or from the folder that holds its score.json.

    Raises FileNotFoundError when there is none, ValueError when it is broken, of another format or incomplete."""
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"there is no score record at {path}; make one with python jobs/evaluate.py, or give the path of its json")
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no score record: it is not JSON ({error}); evaluate again") from error
    version = plain.get("format") if isinstance(plain, dict) else None
    if version != FORMAT:
        raise ValueError(f"{path} has format {version}, but this version reads score records of format {FORMAT}; evaluate again")
    try:
        scores = _estimates(plain.pop("scores"))
        beside = {name: _estimates(row) for name, row in plain.pop("beside").items()}
        record = ScoreRecord(**plain, scores=scores, beside=beside)
        check_complete(record, str(path))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no score record: its fields are not those of one ({error}); evaluate again") from error
    return record


def _estimates(plain: Mapping[str, Any]) -> Scores:
    return {name: Estimate(**value) for name, value in plain.items()}
