"""Likeness of generated texts to their references: BLEU and ROUGE as the paper computes them (elf.md C.3).

Shapes: N texts, K columns.
"""

from collections.abc import Sequence

import numpy as np

from elf.metrics.bootstrap import Columns

ROUGE = ("rouge1", "rouge2", "rougeL")
ORDER = 4  # longest n-gram of BLEU


def bleu_columns(texts: Sequence[str], references: Sequence[str]) -> tuple[Columns, str]:
    """float64 [N, 10]: matches and n-grams of orders 1 to 4, lengths of text and reference; and sacrebleu's signature.

    One reference a text, lower-cased, 13a. Corpus BLEU is ``bleu`` of the column sums."""
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(lowercase=True, effective_order=True)
    rows = []
    for text, reference in zip(texts, references, strict=True):
        score = metric.sentence_score(text, [reference])
        rows.append([*score.counts, *score.totals, score.sys_len, score.ref_len])
    return np.array(rows, dtype=np.float64).reshape(-1, 2 * ORDER + 2), str(metric.get_signature())


def bleu(sums_K: Columns) -> float:
    """Corpus BLEU, 0 to 100, from the column sums of ``bleu_columns``."""
    from sacrebleu.metrics.bleu import BLEU

    whole = [int(value) for value in sums_K]
    return float(
        BLEU.compute_bleu(
            correct=whole[:ORDER], total=whole[ORDER : 2 * ORDER], sys_len=whole[-2], ref_len=whole[-1], effective_order=True
        ).score
    )


def rouge(texts: Sequence[str], references: Sequence[str]) -> dict[str, list[float]]:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L of each text, times 100; stemmer on (rouge_score)."""
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]

    scorer = RougeScorer(list(ROUGE), use_stemmer=True)
    scores = [scorer.score(reference, text) for text, reference in zip(texts, references, strict=True)]
    return {name: [100.0 * score[name].fmeasure for score in scores] for name in ROUGE}
