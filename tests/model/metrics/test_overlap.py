"""BLEU, ROUGE and diversity against the libraries and by hand, on several scripts."""

import math
import string

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from elf.metrics.bootstrap import estimate
from elf.metrics.diversity import distinct_share, self_bleu
from elf.metrics.overlap import UnicodeTokens, bleu, bleu_columns, bleu_tokens_for, rouge
from elf.metrics.tokens import joined_tokens, spaced_tokens, words

TEXTS = ["The cat sat on the mat.", "a dog barked at the moon all night", "", "Nothing alike"]
REFERENCES = ["the cat sat on a mat.", "The dog barked at the moon the whole night.", "an empty one", "entirely different words here"]
SCRIPTS = {
    "russian": ("кошка сидит на окне и смотрит", "собака бежит по улице домой сейчас"),
    "greek": ("η γάτα κάθεται στο παράθυρο σήμερα", "ο σκύλος τρέχει στον δρόμο τώρα"),
    "arabic": ("القطة تجلس على النافذة اليوم", "الكلب يركض في الشارع الآن هنا"),
    "hindi": ("बिल्ली खिड़की पर बैठी है और देखती है", "कुत्ता सड़क पर दौड़ रहा था कल"),
    "korean": ("고양이가 창가에 앉아 밖을 본다", "개가 거리를 달려 집으로 간다"),
    "chinese": ("猫坐在窗台上看着外面的雨", "狗沿着马路跑回家吃饭"),
    "japanese": ("猫が窓辺に座って雨を見ている", "犬は道を走って家に帰ります"),
    "thai": ("แมวนั่งอยู่ที่หน้าต่าง", "สุนัขวิ่งกลับบ้านตอนเย็น"),
}


def alone(references: list[str]) -> list[list[str]]:
    return [[reference] for reference in references]


def test_bleu_of_sums_is_sacrebleus_corpus_score() -> None:
    columns, signature = bleu_columns(TEXTS, alone(REFERENCES))
    expected = sacrebleu.corpus_bleu(TEXTS, [REFERENCES], lowercase=True, use_effective_order=True)
    assert bleu(columns.sum(0)) == pytest.approx(expected.score, abs=1e-9) and expected.score > 10
    assert "case:lc" in signature and "eff:yes" in signature and "tok:13a" in signature and "nrefs:1" in signature
    two, _ = bleu_columns(TEXTS[:2], alone(REFERENCES[:2]))
    assert bleu(two.sum(0)) == pytest.approx(
        sacrebleu.corpus_bleu(TEXTS[:2], [REFERENCES[:2]], lowercase=True, use_effective_order=True).score, abs=1e-9
    )


def test_bleu_without_a_match_of_four_words_is_smoothed_as_sacrebleu_does() -> None:
    texts, references = ["the cat sat there and slept"], ["the cat sat here and ate"]
    columns, signature = bleu_columns(texts, alone(references))
    expected = sacrebleu.corpus_bleu(texts, [references], lowercase=True, use_effective_order=True).score
    assert columns[0, 3] == 0 and bleu(columns.sum(0)) == pytest.approx(expected) and expected > 1 and "smooth:exp" in signature


def test_bleu_of_copies_is_100() -> None:
    columns, _ = bleu_columns(REFERENCES, alone(REFERENCES))
    found = estimate(columns, bleu, resamples=20)
    assert found.value == pytest.approx(100) and found.low == pytest.approx(100)


def test_several_references_are_scored_as_several() -> None:
    texts, first, second = TEXTS[:2], REFERENCES[:2], ["On the mat sat the cat.", "a dog barked at the moon all night"]
    columns, signature = bleu_columns(texts, list(zip(first, second, strict=True)))
    expected = sacrebleu.corpus_bleu(texts, [first, second], lowercase=True, use_effective_order=True).score
    assert bleu(columns.sum(0)) == pytest.approx(expected) and "nrefs:2" in signature
    ragged, signature = bleu_columns(texts, [[first[0]], [first[1], second[1], ""]])
    assert ragged[1].tolist() == [8, 7, 6, 5, 8, 7, 6, 5, 8, 8] and "nrefs:1-3" in signature
    scores = rouge(texts, [[first[0]], [first[1], second[1], ""]])
    assert scores["rougeL"][1] == 100 and scores["rougeL"][0] == rouge(texts[:1], [[first[0]]])["rougeL"][0] < 100
    with pytest.raises(ValueError, match="text 2 has no reference"):
        rouge(texts, [["a"], []])


def test_rouge_of_ascii_text_is_the_librarys_own() -> None:
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    found = rouge(TEXTS, alone(REFERENCES))
    for name, values in found.items():
        assert values == [100 * scorer.score(r, t)[name].fmeasure for t, r in zip(TEXTS, REFERENCES, strict=True)]
    assert rouge(["cats running"], [["cat runs"]])["rouge1"] == [100.0], "stems are compared"


@given(st.text(alphabet=string.printable + "‘’“”–—…", max_size=60))
def test_rouges_words_of_english_are_those_of_rouge_score(text: str) -> None:
    assert UnicodeTokens().tokenize(text) == DefaultTokenizer(use_stemmer=True).tokenize(text)


@pytest.mark.parametrize("script", SCRIPTS)
def test_metrics_hold_on_every_script(script: str) -> None:
    one, other = SCRIPTS[script]
    kind = bleu_tokens_for([one, other])
    assert kind == {"chinese": "zh", "japanese": "char", "thai": "char"}.get(script, "13a")
    for text, expected in ((one, 100.0), (f"{one[: 2 * len(one) // 3]} {other[len(other) // 2 :]}", None), (other, None)):
        values = {name: values[0] for name, values in rouge([text], [[one]]).items()}
        columns, signature = bleu_columns([text], [[one]], tokenize=kind)
        values["bleu"] = bleu(columns.sum(0))
        assert f"tok:{kind}" in signature
        for name, value in values.items():
            assert value == pytest.approx(expected) if expected else 0 <= value < 80, (name, value)
            assert text == other or value > 0, f"{name} sees the start of the {script} text"
    assert distinct_share([one, one], 1) < 0.6 < distinct_share([one], 2), "one text twice has half as many different words"
    assert self_bleu([one, one], tokenize=kind) == pytest.approx([100, 100])


def test_rouge_is_caseless_and_takes_either_form_of_an_accent() -> None:
    assert rouge(["STRASSE café"], [["Straße cafe\u0301"]])["rouge2"] == [100.0]


def test_what_has_no_words_is_not_defined() -> None:
    scores = rouge(["", "!", "a b"], [["?!"], ["a"], [""]])
    for values in scores.values():
        assert math.isnan(values[0]) and values[1] == 0 and math.isnan(values[2])
    columns, _ = bleu_columns(["a b", ""], [[""], [""]])
    assert math.isnan(bleu(columns.sum(0)))
    assert bleu(bleu_columns(["", ""], [["a b"], ["c"]])[0].sum(0)) == 0, "empty answers to references that hold something"


def test_a_tokenizer_whose_packages_are_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None)
    with pytest.raises(ValueError, match=r"ja-mecab needs packages .*sacrebleu\[ja\]"):
        bleu_columns(["猫"], [["猫"]], tokenize="ja-mecab")


def test_lists_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        bleu_columns(TEXTS, alone(REFERENCES[:2]))


def test_distinct_shares_by_hand() -> None:
    texts = ["a b a b", "a b c"]
    assert distinct_share(texts, 1) == 3 / 7
    assert distinct_share(texts, 2) == 3 / 5  # ab ba ab | ab bc
    assert distinct_share(["你好你"], 1) == 2 / 3 and distinct_share(["你好你"], 2) == 1
    assert math.isnan(distinct_share(["one"], 2))


def test_words_of_scripts() -> None:
    assert words("देखती है, 3 बार") == ["देखती", "है", "बार"] and words("猫がDon't") == ["猫", "が", "don't"]
    assert spaced_tokens(" a  b-c ") == ["a", "b-c"]
    for text in ("two words", "今日は良い。", "猫 cat"):
        assert spaced_tokens(joined_tokens(spaced_tokens(text))) == spaced_tokens(text)


def test_self_bleu() -> None:
    assert self_bleu(["the same words again and again"] * 3) == pytest.approx([100] * 3)
    assert max(self_bleu(["a b c d", "e f g h", "i j k l"])) == 0
    expected = sacrebleu.sentence_bleu(TEXTS[0], TEXTS[1:], use_effective_order=True).score
    assert self_bleu(TEXTS)[0] == pytest.approx(expected)
    many = [f"text {i} of {i % 7} words" for i in range(50)]
    assert len(self_bleu(many, most=10, seed=1)) == 10
    assert self_bleu(many, most=10, seed=1) == self_bleu(many, most=10, seed=1) != self_bleu(many, most=10, seed=2)
    assert self_bleu(["alone"]) == [] and np.isfinite(self_bleu(["a", ""])).all()
