"""Simple measures of texts and token rows that need no judge.

Shapes: B rows, L tokens, V vocabulary.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from elf.metrics.tokens import words


def known_word_share(texts: Iterable[str], vocabulary: frozenset[str] | set[str]) -> float:
    """Share of the words of ``texts`` that are in ``vocabulary`` (lower case); nan when there are no words."""
    found = [word in vocabulary for text in texts for word in words(text)]
    return sum(found) / len(found) if found else math.nan


def row_entropies(rows: Iterable[Sequence[int]]) -> list[float]:
    """Entropy in nats of each row's own token counts, of the rows that are not empty (elf.md C.3)."""
    values = []
    for row in rows:
        counts = np.array(list(Counter(row).values()), dtype=np.float64)
        if counts.size:
            p = counts / counts.sum()
            values.append(float(-(p * np.log(p)).sum()))
    return values


def unigram_entropy(rows: Iterable[Sequence[int]]) -> float:
    """``row_entropies`` averaged; nan when all rows are empty."""
    values = row_entropies(rows)
    return sum(values) / len(values) if values else math.nan


def unigram_cross_entropy(train_counts_V: NDArray[np.int64], valid_counts_V: NDArray[np.int64]) -> float:
    """Nats per token of the validation tokens under the training tokens' frequencies (add-one smoothed): what a model that
    knows no context reaches."""
    log_p_V = np.log((train_counts_V + 1) / (train_counts_V.sum() + len(train_counts_V)))
    return float(-(valid_counts_V * log_p_V).sum() / max(valid_counts_V.sum(), 1))
