"""Likeness of generated texts to their references: BLEU and ROUGE as the paper computes them (elf.md C.3), on texts of any script.

A text may have several references, another number each. Shapes: N texts, K columns.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from elf.metrics.bootstrap import Columns
from elf.metrics.tokens import caseless_tokens, unspaced_kind

ROUGE = ("rouge1", "rouge2", "rougeL")
ORDER = 4  # longest n-gram of BLEU

BleuTokens = Literal["13a", "intl", "zh", "char", "ja-mecab", "ko-mecab", "none"]
"""Tokenizers of sacrebleu that fetch nothing. ja-mecab and ko-mecab need its extras ja and ko."""
References = Sequence[Sequence[str]]
"""One or more references for each text."""


def bleu_tokens_for(texts: Iterable[str]) -> BleuTokens:
    """sacrebleu's tokenizer for texts like these: zh for Chinese, char for Japanese and other scripts without spaces, else 13a."""
    kinds: dict[str, BleuTokens] = {"": "13a", "chinese": "zh", "other": "char"}
    return kinds[unspaced_kind(texts)]


def bleu_metric(tokenize: BleuTokens, *, lowercase: bool) -> Any:
    """sacrebleu's BLEU of effective order; ValueError when a package that ``tokenize`` needs is not installed."""
    from sacrebleu.metrics.bleu import BLEU

    try:
        return BLEU(lowercase=lowercase, effective_order=True, tokenize=tokenize)
    except RuntimeError as error:
        language = tokenize.partition("-")[0]
        raise ValueError(
            f"BLEU's tokenizer {tokenize} needs packages that are not installed; pip install 'sacrebleu[{language}]', or take char"
        ) from error


def bleu_columns(texts: Sequence[str], references: References, *, tokenize: BleuTokens = "13a") -> tuple[Columns, str]:
    """float64 [N, 10]: matches and n-grams of orders 1 to 4, lengths of text and closest reference; and sacrebleu's signature.

    Lower-cased. An empty reference counts only where a text has no other. Corpus BLEU is ``bleu`` of the column sums.
    Raises ValueError when a text has no reference, or ``tokenize`` needs a package that is not installed."""
    metric = bleu_metric(tokenize, lowercase=True)
    rows = []
    for number, (text, some) in enumerate(zip(texts, references, strict=True), 1):
        score = metric.sentence_score(text, _filled(some, number))
        rows.append([*score.counts, *score.totals, score.sys_len, score.ref_len])
    counts = sorted({len(some) for some in references})
    signature = f"nrefs:{'-'.join(map(str, counts))}|case:lc|eff:yes|tok:{metric.tokenizer_signature}|smooth:exp|version:{_version()}"
    return np.array(rows, dtype=np.float64).reshape(-1, 2 * ORDER + 2), signature


def bleu(sums_K: Columns) -> float:
    """Corpus BLEU, 0 to 100, from the column sums of ``bleu_columns``; nan where the references hold nothing."""
    from sacrebleu.metrics.bleu import BLEU

    whole = [int(value) for value in sums_K]
    if not whole[-1]:
        return float("nan")
    return float(
        BLEU.compute_bleu(
            correct=whole[:ORDER], total=whole[ORDER : 2 * ORDER], sys_len=whole[-2], ref_len=whole[-1], smooth_method="exp",
            effective_order=True,
        ).score
    )


def rouge(texts: Sequence[str], references: References) -> dict[str, list[float]]:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L of each text, times 100, by rouge_score: of several references the best for each of the three.

    Words of any script (``UnicodeTokens``). nan where no reference of a text has a word; 0 where the text alone has none."""
    from rouge_score.rouge_scorer import RougeScorer

    tokens = UnicodeTokens()
    scorer = RougeScorer(list(ROUGE), tokenizer=tokens)
    values: dict[str, list[float]] = {name: [] for name in ROUGE}
    for number, (text, some) in enumerate(zip(texts, references, strict=True), 1):
        worded = [reference for reference in _filled(some, number) if tokens.tokenize(reference)]
        found = scorer.score_multi(worded, text) if worded else None
        for name in ROUGE:
            values[name].append(100.0 * found[name].fmeasure if found else float("nan"))
    return values


class UnicodeTokens:
    """ROUGE's words: those of ``caseless_tokens``, of which a-z0-9 of more than three characters are cut to their Porter stems, as
    rouge_score does with its stemmer on. On ASCII text the figures are rouge_score's own."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self._stem = PorterStemmer().stem

    def tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        return [self._stem(word) if len(word) > 3 and word.isascii() else word for word in caseless_tokens(text)]


def _filled(references: Sequence[str], number: int) -> list[str]:
    """The references of text ``number`` that are not empty; an empty one where all are."""
    assert not isinstance(references, str), "each text has a list of references"
    if not references:
        raise ValueError(f"text {number} has no reference; give one at least, which may be empty")
    return [reference for reference in references if reference.strip()] or [""]


def _version() -> str:
    import sacrebleu

    return str(sacrebleu.__version__)
