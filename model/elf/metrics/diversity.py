"""How much texts repeat themselves and each other."""

import math
from collections.abc import Sequence

import numpy as np

from elf.metrics.overlap import BleuTokens, bleu_metric
from elf.metrics.tokens import spaced_tokens


def distinct_share(texts: Sequence[str], n: int) -> float:
    """distinct-n: different n-grams over all n-grams of all texts (Li et al. 2016, 1510.03055); nan without any. Of words between white
    space, and of characters where a script has no spaces. It falls as the number of texts grows, so it compares at equal counts alone."""
    grams = [tuple(words[i : i + n]) for words in map(spaced_tokens, texts) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else math.nan


def self_bleu(texts: Sequence[str], *, most: int = 64, seed: int = 0, tokenize: BleuTokens = "13a") -> list[float]:
    """Sentence BLEU (sacrebleu, effective order) of each text against all the others, 0 to 100 (Zhu et al. 2018, 1802.01886).

    Of more than ``most`` texts as many are drawn by ``seed``: the work grows with the square. Empty with fewer than two texts."""
    if len(texts) > most:
        chosen = np.random.default_rng(seed).choice(len(texts), size=most, replace=False)
        texts = [texts[i] for i in sorted(chosen.tolist())]
    if len(texts) < 2:
        return []
    metric = bleu_metric(tokenize, lowercase=False)
    return [metric.sentence_score(text, [*texts[:i], *texts[i + 1 :]]).score for i, text in enumerate(texts)]
