"""Texts that a judge must like less than the real one they are made from. Words are between white space, and characters where a script has
no spaces."""

from collections.abc import Sequence

import numpy as np

from elf.metrics.tokens import joined_tokens, spaced_tokens


def shuffled(texts: Sequence[str], *, seed: int = 0) -> list[str]:
    """The words of each text in a random order: the same unigram statistics in every text, no syntax."""
    rng = np.random.default_rng(seed)
    return [joined_tokens(rng.permutation(np.array(spaced_tokens(text), dtype=object)).tolist()) for text in texts]


def unigram(texts: Sequence[str], *, seed: int = 0) -> list[str]:
    """Texts of the same numbers of words, each drawn from the frequencies over all texts: no topic either."""
    rng = np.random.default_rng(seed)
    lists = [spaced_tokens(text) for text in texts]
    pool = np.array([word for words in lists for word in words], dtype=object)
    if not len(pool):
        return ["" for _ in texts]
    return [joined_tokens(rng.choice(pool, size=len(words)).tolist()) for words in lists]
