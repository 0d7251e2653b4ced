"""From texts and a judge to a score record."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from elf.metrics.overlap import BleuTokens, References, bleu_tokens_for
from elf.metrics.perplexity import PROTOCOLS, Protocol
from elf.metrics.tokens import ROUGE_TOKENS
from elf_platform.evaluate import controls
from elf_platform.evaluate.judge import Judge
from elf_platform.evaluate.metrics import Found, Resampling, judged_scores, mauve_score, overlap_scores, text_scores
from elf_platform.evaluate.record import NO_JUDGE, NO_REFERENCE, REQUIRED, Facts, ScoreRecord
from elf_platform.evaluate.scoring import BATCH_TOKENS, Run, Scored, score_sets
from elf_platform.evaluate.texts import Texts
from elf_platform.version import code_version


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How texts are measured: the judge and everything that moves its figures."""

    judge: Judge | None
    protocol: Protocol = PROTOCOLS["elf"]
    limit: int = 0
    """Judge tokens of a text at most; 0 for the judge's own limit."""
    budget: int = BATCH_TOKENS
    threads: int = 1
    resampling: Resampling = dataclasses.field(default_factory=Resampling)
    bleu_tokenize: BleuTokens | Literal["auto"] = "auto"
    """sacrebleu's tokenizer for BLEU and self-BLEU; auto goes by the script of the references, else of the reference text, else of the
    subject."""
    run: Run | None = None
    """Where batches are scored; None for this process."""
    progress: bool = False
    """Say how far the judge is."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One set of texts, measured."""

    facts: Facts
    found: Found
    scored: Scored | None


def measure_texts(measure: Measure, sets: Sequence[Texts], tokenize: BleuTokens, *, may_be_empty: bool = False) -> list[Measured]:
    """The scores of each set of texts; empty texts are dropped and counted. may_be_empty: so may all of the first set be.

    Raises ValueError when all of another set are empty, or the judge cannot score as the protocol says."""
    kept = [texts.kept for texts in sets]
    scored: list[Scored | None] = [None] * len(sets)
    if measure.judge is not None:
        whole = [measure.judge.encode([texts.texts[i] for i in some]) for texts, some in zip(sets, kept, strict=True)]
        kept = [[i for i, ids in zip(some, rows, strict=True) if ids] for some, rows in zip(kept, whole, strict=True)]
        tokens = [[ids for ids in rows if ids] for rows in whole]
        _check_some(sets[may_be_empty:], kept[may_be_empty:])
        scored[:] = score_sets(
            measure.judge, tokens, measure.protocol, run=measure.run, limit=measure.limit, budget=measure.budget, progress=measure.progress
        )
    _check_some(sets[may_be_empty:], kept[may_be_empty:])
    return [_measured(measure, *one, tokenize) for one in zip(sets, kept, scored, strict=True)]


def _check_some(sets: Sequence[Texts], kept: Sequence[list[int]]) -> None:
    for texts, some in zip(sets, kept, strict=True):
        if not some:
            raise ValueError(f"{texts.path} holds no text that can be scored: all {len(texts.texts)} are empty")


def _measured(measure: Measure, texts: Texts, kept: list[int], scored: Scored | None, tokenize: BleuTokens) -> Measured:
    found = judged_scores(scored, measure.protocol, measure.resampling) if scored is not None else Found()
    some, ids = [texts.texts[i] for i in kept], [texts.ids[i] for i in kept] if texts.ids is not None else None
    found |= text_scores(some, ids, measure.resampling, tokenize)
    facts: Facts = {
        "kind": texts.kind,
        "path": texts.path,
        "sha256": texts.sha256,
        "form": texts.form,
        "texts": len(texts.texts),
        "empty": len(texts.texts) - len(kept),
        "scored": len(kept),
        **({"unended": texts.unended} if texts.room else {}),
        "truncated": scored.truncated if scored else 0,
        "tokens_at_most": (measure.limit or measure.judge.card.length) if measure.judge else NO_JUDGE,
    }
    if scored is not None:
        facts |= {"tokens": scored.tokens, "tokens_judged": sum(map(len, scored.ids))}
    return Measured(facts=facts, found=found, scored=scored)


def score(
    measure: Measure, subject: Texts, *, name: str, reference: Texts | None = None, targets: References | None = None,
    with_controls: bool = False,
) -> ScoreRecord:
    """The record of ``subject``; ``reference`` text is scored the same way and MAUVE taken against it; ``targets`` (one or more a text)
    give BLEU and ROUGE, of empty answers too; ``with_controls`` adds shuffled and unigram versions of the reference.

    Raises ValueError for targets of another number, controls without a reference, and text that cannot be scored."""
    if targets is not None and len(targets) != len(subject.texts):
        raise ValueError(
            f"there are {len(subject.texts)} texts to score but {len(targets)} references to compare them with: one belongs to each, in "
            "the same order; give the references of these very sources"
        )
    if with_controls and reference is None:
        raise ValueError("controls are shuffled and unigram versions of the reference text, but none is given; add --real_text")
    beside = {"reference": reference} if reference is not None else {}
    if with_controls and reference is not None:
        beside |= _controls(reference, measure.resampling.seed)
    tokenize = _bleu_tokens(measure, subject, reference, targets)
    done, *others = measure_texts(measure, [subject, *beside.values()], tokenize, may_be_empty=targets is not None)
    measured = dict(zip(beside, others, strict=True))
    found, signature = done.found, NO_REFERENCE
    real = measured.get("reference")
    if real is not None and done.scored is not None and real.scored is not None:
        found |= mauve_score(done.scored, real.scored, measure.resampling)
    if targets is not None:
        overlap, signature = overlap_scores(subject.texts, targets, measure.resampling, tokenize)
        found |= overlap
    # What BLEU, ROUGE and MAUVE are taken against is part of the measure: figures against other texts do not compare.
    against = {
        "reference_sha256": reference.sha256 if reference is not None else NO_REFERENCE,
        "references_sha256": _digest(targets) if targets is not None else NO_REFERENCE,
        "bleu_tokenize": tokenize, "bleu_signature": signature, "rouge_tokens": ROUGE_TOKENS if targets is not None else NO_REFERENCE,
    }
    return ScoreRecord(
        name=name, subject=done.facts, sampling=subject.sampling, judge=judge_facts(measure), protocol=protocol_facts(measure) | against,
        scores=found.scores, beside={row: one.found.scores for row, one in measured.items()},
        beside_subjects={row: one.facts for row, one in measured.items()},
        remarks=found.remarks | {f"{row}.{key}": said for row, one in measured.items() for key, said in one.found.remarks.items()},
        code_version=code_version(),
    )


def _bleu_tokens(measure: Measure, subject: Texts, reference: Texts | None, targets: References | None) -> BleuTokens:
    if measure.bleu_tokenize != "auto":
        return measure.bleu_tokenize
    if targets is not None and any(text.strip() for some in targets for text in some):
        return bleu_tokens_for(text for some in targets for text in some)
    return bleu_tokens_for((reference or subject).texts)


def _digest(targets: References) -> str:
    """SHA-256 of references in order; a single one of a text counts as itself."""
    plain = [some[0] if len(some) == 1 else list(some) for some in targets]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def _controls(reference: Texts, seed: int) -> dict[str, Texts]:
    real = [reference.texts[i] for i in reference.kept]
    made = {"shuffled": controls.shuffled(real, seed=seed), "unigram": controls.unigram(real, seed=seed)}
    return {
        name: dataclasses.replace(reference, texts=texts, ids=None, form=f"{name} words of {reference.form}")
        for name, texts in made.items()
    }


def judge_facts(measure: Measure) -> Facts:
    """The judge of a measure as a record states it."""
    if measure.judge is None:
        return dict.fromkeys(REQUIRED["judge"], NO_JUDGE)
    return {**dataclasses.asdict(measure.judge.card), "batch_tokens": measure.budget, "threads": measure.threads}


def protocol_facts(measure: Measure) -> Facts:
    """The protocol of a measure as a record states it."""
    return {**dataclasses.asdict(measure.protocol), **dataclasses.asdict(measure.resampling)}
