"""From texts and a judge to a score record."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from elf.metrics.perplexity import PROTOCOLS, Protocol
from elf_platform.evaluate import controls
from elf_platform.evaluate.judge import Judge
from elf_platform.evaluate.metrics import Resampling, judged_scores, mauve_score, overlap_scores, text_scores
from elf_platform.evaluate.record import NO_JUDGE, NO_REFERENCE, REQUIRED, Facts, ScoreRecord, Scores
from elf_platform.evaluate.scoring import BATCH_TOKENS, Run, Scored, score_sets
from elf_platform.evaluate.texts import Texts
from elf_platform.sampling.sources import digest
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
    run: Run | None = None
    """Where batches are scored; None for this process."""
    progress: bool = False
    """Say how far the judge is."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One set of texts, measured."""

    facts: Facts
    scores: Scores
    scored: Scored | None


def measure_texts(measure: Measure, sets: Sequence[Texts]) -> list[Measured]:
    """The scores of each set of texts; empty texts are dropped and counted.

    Raises ValueError when all of a set are empty, or the judge cannot score as the protocol says."""
    kept = [texts.kept for texts in sets]
    scored: list[Scored | None] = [None] * len(sets)
    if measure.judge is not None:
        whole = [measure.judge.encode([texts.texts[i] for i in some]) for texts, some in zip(sets, kept, strict=True)]
        kept = [[i for i, ids in zip(some, rows, strict=True) if ids] for some, rows in zip(kept, whole, strict=True)]
        _check_some(sets, kept)
        tokens = [[ids for ids in rows if ids] for rows in whole]
        scored[:] = score_sets(
            measure.judge, tokens, measure.protocol, run=measure.run, limit=measure.limit, budget=measure.budget, progress=measure.progress
        )
    _check_some(sets, kept)
    return [_measured(measure, *one) for one in zip(sets, kept, scored, strict=True)]


def _check_some(sets: Sequence[Texts], kept: Sequence[list[int]]) -> None:
    for texts, some in zip(sets, kept, strict=True):
        if not some:
            raise ValueError(f"{texts.path} holds no text that can be scored: all {len(texts.texts)} are empty")


def _measured(measure: Measure, texts: Texts, kept: list[int], scored: Scored | None) -> Measured:
    scores: Scores = judged_scores(scored, measure.protocol, measure.resampling) if scored is not None else {}
    some, ids = [texts.texts[i] for i in kept], [texts.ids[i] for i in kept] if texts.ids is not None else None
    scores |= text_scores(some, ids, measure.resampling)
    facts = {
        "kind": texts.kind,
        "path": texts.path,
        "sha256": texts.sha256,
        "form": texts.form,
        "texts": len(texts.texts),
        "empty": len(texts.texts) - len(kept),
        "scored": len(kept),
        "truncated": scored.truncated if scored else 0,
        "tokens_at_most": (measure.limit or measure.judge.card.length) if measure.judge else NO_JUDGE,
    }
    return Measured(facts=facts, scores=scores, scored=scored)


def score(
    measure: Measure, subject: Texts, *, name: str, reference: Texts | None = None, targets: Sequence[str] | None = None,
    with_controls: bool = False,
) -> ScoreRecord:
    """The record of ``subject``; ``reference`` text is scored the same way and MAUVE taken against it; ``targets`` (one a text) give BLEU
    and ROUGE; ``with_controls`` adds shuffled and unigram versions of the reference.

    Raises ValueError for targets of another number, controls without a reference, and text that cannot be scored."""
    if targets is not None and len(targets) != len(subject.texts):
        raise ValueError(
            f"there are {len(subject.texts)} texts to score but {len(targets)} references to compare them with: one belongs to each, in "
            "the same order; give the references of these very sources"
        )
    if with_controls and reference is None:
        raise ValueError("controls are shuffled and unigram versions of the reference text, but none is given; add --reference")
    beside = {"reference": reference} if reference is not None else {}
    if with_controls and reference is not None:
        beside |= _controls(reference, measure.resampling.seed)
    done, *others = measure_texts(measure, [subject, *beside.values()])
    measured = dict(zip(beside, others, strict=True))
    scores = dict(done.scores)
    real = measured.get("reference")
    if real is not None and done.scored is not None and real.scored is not None:
        scores |= mauve_score(done.scored, real.scored, measure.resampling)
    if targets is not None:
        scores |= overlap_scores(subject.texts, targets, measure.resampling)
    # What BLEU, ROUGE and MAUVE are taken against is part of the measure: figures against other texts do not compare.
    against = {
        "reference_sha256": reference.sha256 if reference is not None else NO_REFERENCE,
        "references_sha256": digest(targets) if targets is not None else NO_REFERENCE,
    }
    return ScoreRecord(
        name=name, subject=done.facts, sampling=subject.sampling, judge=judge_facts(measure), protocol=protocol_facts(measure) | against,
        scores=scores, beside={row: one.scores for row, one in measured.items()},
        beside_subjects={row: one.facts for row, one in measured.items()}, code_version=code_version(),
    )


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
