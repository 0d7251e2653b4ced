"""From texts to named scores. Adding one is one function here and one line in the caller's list.

Names: gen_ppl, entropy (nats, over the judge's ids), entropy_own (over the sampled ids), distinct_1 to distinct_3 (share of different
word n-grams), self_bleu, mauve (against the reference), bleu, rouge1, rouge2, rougeL.

Shapes: N texts, K columns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from elf.metrics.bootstrap import Estimate, estimate, mean_estimate
from elf.metrics.diversity import distinct_share, self_bleu
from elf.metrics.mauve import mauve
from elf.metrics.overlap import bleu, bleu_columns, rouge
from elf.metrics.perplexity import Protocol, perplexity, perplexity_columns
from elf.metrics.text import row_entropies
from elf_platform.evaluate.record import Scores
from elf_platform.evaluate.scoring import Scored

MAUVE_TEXTS = 100
"""Texts of either side that MAUVE needs: of fewer there are not ten clusters, and chance decides."""


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """What is drawn at random, and how much of it."""

    resamples: int = 1000
    seed: int = 0
    self_bleu_texts: int = 64
    """Texts that self-BLEU is taken over at most, drawn by the seed."""


def judged_scores(scored: Scored, protocol: Protocol, sampling: Resampling) -> Scores:
    """Generative perplexity and entropy over the judge's ids."""
    columns_N2 = perplexity_columns(scored.sums_N2, protocol)
    return {
        "gen_ppl": estimate(columns_N2, perplexity, resamples=sampling.resamples, seed=sampling.seed),
        "entropy": mean_estimate(row_entropies(scored.ids), resamples=sampling.resamples, seed=sampling.seed),
    }


def text_scores(texts: Sequence[str], ids: Sequence[Sequence[int]] | None, sampling: Resampling) -> Scores:
    """What needs no judge: diversity, and the entropy over the sampled ids where there are any.

    distinct-n has no interval: drawing a text twice lowers it by itself."""
    scores: Scores = {}
    if ids is not None:
        scores["entropy_own"] = mean_estimate(row_entropies(ids), resamples=sampling.resamples, seed=sampling.seed)
    for n in (1, 2, 3):
        share = distinct_share(texts, n)
        if math.isfinite(share):
            scores[f"distinct_{n}"] = Estimate(value=share, count=len(texts))
    against_others = self_bleu(texts, most=sampling.self_bleu_texts, seed=sampling.seed)
    if against_others:
        scores["self_bleu"] = mean_estimate(against_others, resamples=sampling.resamples, seed=sampling.seed)
    return scores


def mauve_score(scored: Scored, reference: Scored, sampling: Resampling) -> Scores:
    """MAUVE against the reference, over equally many texts of both. Without an interval: resampled texts repeat, which moves it."""
    count = min(len(scored.state_NH), len(reference.state_NH))
    if count < MAUVE_TEXTS:
        return {}
    value = mauve(scored.state_NH[:count], reference.state_NH[:count], seed=sampling.seed)
    return {"mauve": Estimate(value=value, count=count)} if math.isfinite(value) else {}


def overlap_scores(texts: Sequence[str], references: Sequence[str], sampling: Resampling) -> Scores:
    """BLEU and ROUGE against one reference a text; an empty text scores nothing and stays in the count."""
    columns_NK, _ = bleu_columns(texts, references)
    scores = {"bleu": estimate(columns_NK, bleu, resamples=sampling.resamples, seed=sampling.seed)}
    for name, values in rouge(texts, references).items():
        scores[name] = mean_estimate(values, resamples=sampling.resamples, seed=sampling.seed)
    return scores
