"""BLEU, ROUGE and diversity against the libraries and by hand."""

import math

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from elf.metrics.bootstrap import estimate
from elf.metrics.diversity import distinct_share, self_bleu
from elf.metrics.overlap import bleu, bleu_columns, rouge

TEXTS = ["The cat sat on the mat.", "a dog barked at the moon all night", "", "Nothing alike"]
REFERENCES = ["the cat sat on a mat.", "The dog barked at the moon the whole night.", "an empty one", "entirely different words here"]


def test_bleu_of_sums_is_sacrebleus_corpus_score() -> None:
    columns, signature = bleu_columns(TEXTS, REFERENCES)
    expected = sacrebleu.corpus_bleu(TEXTS, [REFERENCES], lowercase=True, use_effective_order=True)
    assert bleu(columns.sum(0)) == pytest.approx(expected.score, abs=1e-9) and expected.score > 10
    assert "case:lc" in signature and "eff:yes" in signature and "tok:13a" in signature
    two, _ = bleu_columns(TEXTS[:2], REFERENCES[:2])
    assert bleu(two.sum(0)) == pytest.approx(
        sacrebleu.corpus_bleu(TEXTS[:2], [REFERENCES[:2]], lowercase=True, use_effective_order=True).score, abs=1e-9
    )


def test_bleu_of_copies_is_100() -> None:
    columns, _ = bleu_columns(REFERENCES, REFERENCES)
    found = estimate(columns, bleu, resamples=20)
    assert found.value == pytest.approx(100) and found.low == pytest.approx(100)


def test_rouge_is_the_librarys_f1() -> None:
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    found = rouge(TEXTS, REFERENCES)
    for name, values in found.items():
        assert values == [100 * scorer.score(r, t)[name].fmeasure for t, r in zip(TEXTS, REFERENCES, strict=True)]
    assert rouge(["cats running"], ["cat runs"])["rouge1"] == [100.0], "stems are compared"


def test_lists_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        bleu_columns(TEXTS, REFERENCES[:2])


def test_distinct_shares_by_hand() -> None:
    texts = ["a b a b", "a b c"]
    assert distinct_share(texts, 1) == 3 / 7
    assert distinct_share(texts, 2) == 3 / 5  # ab ba ab | ab bc
    assert math.isnan(distinct_share(["one"], 2))


def test_self_bleu() -> None:
    assert self_bleu(["the same words again and again"] * 3) == pytest.approx([100] * 3)
    assert max(self_bleu(["a b c d", "e f g h", "i j k l"])) == 0
    expected = sacrebleu.sentence_bleu(TEXTS[0], TEXTS[1:], use_effective_order=True).score
    assert self_bleu(TEXTS)[0] == pytest.approx(expected)
    many = [f"text {i} of {i % 7} words" for i in range(50)]
    assert len(self_bleu(many, most=10, seed=1)) == 10
    assert self_bleu(many, most=10, seed=1) == self_bleu(many, most=10, seed=1) != self_bleu(many, most=10, seed=2)
    assert self_bleu(["alone"]) == [] and np.isfinite(self_bleu(["a", ""])).all()
