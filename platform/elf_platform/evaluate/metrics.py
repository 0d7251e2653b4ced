"""From texts to named scores. Adding one is one function here and one line in the caller's list.

Names: gen_ppl, entropy (nats, over the judge's ids), entropy_own (over the sampled ids), distinct_1 to distinct_3 (share of different
word n-grams), self_bleu, mauve (against the reference), bleu, rouge1, rouge2, rougeL. A score that is not defined is no score: a remark
says why.

Shapes: N texts, K columns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from elf.metrics.bootstrap import Estimate, estimate, mean_estimate
from elf.metrics.diversity import distinct_share, self_bleu
from elf.metrics.mauve import mauve
from elf.metrics.overlap import BleuTokens, References, bleu, bleu_columns, rouge
from elf.metrics.perplexity import Protocol, perplexity, perplexity_columns
from elf.metrics.text import row_entropies
from elf_platform.evaluate.record import Remarks, Scores
from elf_platform.evaluate.scoring import Scored

MAUVE_TEXTS = 100
"""Texts of either side that MAUVE needs: of fewer there are not ten clusters, and chance decides."""
_NO_TEXT = "all texts are empty"


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """What is drawn at random, and how much of it."""

    resamples: int = 1000
    seed: int = 0
    self_bleu_texts: int = 64
    """Texts that self-BLEU is taken over at most, drawn by the seed."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """Scores, and what is to be said of some, or of those that are not there, by name."""

    scores: Scores = field(default_factory=dict)
    remarks: Remarks = field(default_factory=dict)

    def __or__(self, other: "Found") -> "Found":
        return Found(scores=self.scores | other.scores, remarks=self.remarks | other.remarks)


def judged_scores(scored: Scored, protocol: Protocol, sampling: Resampling) -> Found:
    """Generative perplexity and entropy over the judge's ids."""
    columns_N2, texts = perplexity_columns(scored.sums_N2, protocol), len(scored.ids)
    unscored = f"a single token, which the protocol {protocol.name} does not score"
    if len(columns_N2):
        score = estimate(columns_N2, perplexity, resamples=sampling.resamples, seed=sampling.seed)
        found = _one("gen_ppl", score, "the judge gives no likelihood")
        if len(columns_N2) < texts:
            found |= Found(remarks={"gen_ppl": f"over {len(columns_N2)} of {texts} texts: the others have {unscored}"})
    else:
        found = Found(remarks={"gen_ppl": f"not defined: each text has {unscored}" if texts else f"not defined: {_NO_TEXT}"})
    return found | _one("entropy", mean_estimate(row_entropies(scored.ids), resamples=sampling.resamples, seed=sampling.seed), _NO_TEXT)


def text_scores(texts: Sequence[str], ids: Sequence[Sequence[int]] | None, sampling: Resampling, tokenize: BleuTokens) -> Found:
    """What needs no judge: diversity, and the entropy over the sampled ids where there are any.

    distinct-n has no interval: drawing a text twice lowers it by itself."""
    found = Found()
    if ids is not None:
        found |= _one("entropy_own", mean_estimate(row_entropies(ids), resamples=sampling.resamples, seed=sampling.seed), _NO_TEXT)
    for n in (1, 2, 3):
        why = f"no text has {n} words" if n > 1 else "no text has a word"
        found |= _one(f"distinct_{n}", Estimate(value=distinct_share(texts, n), count=len(texts)), why)
    against_others = self_bleu(texts, most=sampling.self_bleu_texts, seed=sampling.seed, tokenize=tokenize)
    compared = mean_estimate(against_others, resamples=sampling.resamples, seed=sampling.seed)
    return found | _one("self_bleu", compared, "it compares each text with the others, and there are not two")


def mauve_score(scored: Scored, reference: Scored, sampling: Resampling) -> Found:
    """MAUVE against the reference, over equally many texts of both. Without an interval: resampled texts repeat, which moves it."""
    count = min(len(scored.ids), len(reference.ids))
    if count < MAUVE_TEXTS:
        return Found(remarks={"mauve": f"not defined: it needs {MAUVE_TEXTS} texts of either side, and there are {count}"})
    value = mauve(scored.state_NH[:count], reference.state_NH[:count], seed=sampling.seed)
    return _one("mauve", Estimate(value=value, count=count), "the judge's states give no histogram")


def overlap_scores(texts: Sequence[str], references: References, sampling: Resampling, tokenize: BleuTokens) -> tuple[Found, str]:
    """BLEU and ROUGE against one or more references a text, and BLEU's signature; an empty text scores nothing and stays in the count."""
    columns_NK, signature = bleu_columns(texts, references, tokenize=tokenize)
    found = _one("bleu", estimate(columns_NK, bleu, resamples=sampling.resamples, seed=sampling.seed), "the references hold nothing")
    for name, values in rouge(texts, references).items():
        defined = [value for value in values if not math.isnan(value)]
        score = mean_estimate(defined, resamples=sampling.resamples, seed=sampling.seed)
        found |= _one(name, score, "no reference has a word")
        if 0 < len(defined) < len(values):
            found |= Found(remarks={name: f"over {len(defined)} of {len(values)} texts: the references of the others have no word"})
    return found, signature


def _one(name: str, score: Estimate, why: str) -> Found:
    """A score, or a remark that it is not defined and ``why``."""
    if math.isnan(score.value):
        return Found(remarks={name: f"not defined: {why}"})
    if not all(math.isfinite(value) for value in (score.value, score.low, score.high) if value is not None):
        return Found(remarks={name: "not given: it is beyond the largest number"})
    return Found(scores={name: score})
