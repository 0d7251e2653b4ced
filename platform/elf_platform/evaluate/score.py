"""From texts and a judge to a score record."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from elf.metrics.perplexity import PROTOCOLS, Protocol
from elf_platform.evaluate import controls
from elf_platform.evaluate.judge import Judge
from elf_platform.evaluate.metrics import Resampling, judged_scores, mauve_score, overlap_scores, text_scores
from elf_platform.evaluate.record import NO_JUDGE, NO_REFERENCE, REQUIRED, Facts, ScoreRecord, Scores
from elf_platform.evaluate.scoring import BATCH_TOKENS, Run, Scored, score_texts
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


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One set of texts, measured."""

    facts: Facts
    scores: Scores
    scored: Scored | None


def measure_texts(measure: Measure, texts: Texts) -> Measured:
    """The scores of one set of texts; empty ones are dropped and counted.

    Raises ValueError when all are empty, or the judge cannot score as the protocol says."""
    kept = texts.kept
    tokens: list[list[int]] = []
    if measure.judge is not None:
        whole = measure.judge.encode([texts.texts[i] for i in kept])
        kept = [i for i, ids in zip(kept, whole, strict=True) if ids]
        tokens = [ids for ids in whole if ids]
    if not kept:
        raise ValueError(f"{texts.path} holds no text that can be scored: all {len(texts.texts)} are empty")
    some = [texts.texts[i] for i in kept]
    scores: Scores = {}
    scored = None
    if measure.judge is not None:
        scored = score_texts(measure.judge, tokens, measure.protocol, run=measure.run, limit=measure.limit, budget=measure.budget)
        scores |= judged_scores(scored, measure.protocol, measure.resampling)
    scores |= text_scores(some, [texts.ids[i] for i in kept] if texts.ids is not None else None, measure.resampling)
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
    done = measure_texts(measure, subject)
    scores = dict(done.scores)
    beside: dict[str, Scores] = {}
    subjects: dict[str, Facts] = {}
    if reference is not None:
        real = measure_texts(measure, reference)
        beside["reference"], subjects["reference"] = real.scores, real.facts
        if done.scored is not None and real.scored is not None:
            scores |= mauve_score(done.scored, real.scored, measure.resampling)
        if with_controls:
            for made, texts in _controls(reference, measure.resampling.seed).items():
                control = measure_texts(measure, texts)
                beside[made], subjects[made] = control.scores, control.facts
    if targets is not None:
        scores |= overlap_scores(subject.texts, targets, measure.resampling)
    # What BLEU, ROUGE and MAUVE are taken against is part of the measure: figures against other texts do not compare.
    against = {
        "reference_sha256": reference.sha256 if reference is not None else NO_REFERENCE,
        "references_sha256": digest(targets) if targets is not None else NO_REFERENCE,
    }
    return ScoreRecord(
        name=name, subject=done.facts, sampling=subject.sampling, judge=judge_facts(measure), protocol=protocol_facts(measure) | against,
        scores=scores, beside=beside, beside_subjects=subjects, code_version=code_version(),
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
