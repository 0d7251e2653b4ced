"""Score records: complete or refused, the same figures every time, and comparisons that mark what does not compare."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from score_subjects import TEXTS, write_samples

from elf.data.tokenizer import Tokenizer
from elf.metrics.perplexity import PROTOCOLS
from elf_platform.evaluate.compare import compare, score_table
from elf_platform.evaluate.judge import load_judge
from elf_platform.evaluate.metrics import Resampling
from elf_platform.evaluate.record import REQUIRED, ScoreRecord, load_record, missing, record_json, save_record
from elf_platform.evaluate.score import Measure, score
from elf_platform.evaluate.texts import Texts, given, read_texts
from elf_platform.sampling.run import SourceFacts

TARGETS = [[text] for text in TEXTS]


def measure(judge_folder: Path, protocol: str = "elf") -> Measure:
    return Measure(judge=load_judge(str(judge_folder)), protocol=PROTOCOLS[protocol], resampling=Resampling(resamples=50))


@pytest.fixture(scope="module")
def record(judge_folder: Path, sample_folder: Path) -> ScoreRecord:
    reference = Texts(kind="text", path="real.txt", form="lines", texts=TEXTS[::-1], sampling=given())
    return score(
        measure(judge_folder), read_texts(sample_folder), name="first", reference=reference, targets=TARGETS, with_controls=True
    )


def test_a_record_states_everything(record: ScoreRecord, sample_folder: Path, judge_folder: Path, tokenizer: Tokenizer) -> None:
    assert missing(record) == []
    assert record.subject["texts"] == 6 and record.subject["empty"] == 1 and record.subject["scored"] == 5
    said = record.sampling
    assert (said["sampler"], said["steps"], said["nfe"], said["seed"], said["weights"]) == ("sde", 4, 5, 7, "ema")
    assert (said["artefact"], said["tokenizer"], said["data"]) == ("ab" * 32, tokenizer.fingerprint, "cd" * 32)
    assert record.judge["name"] == "judge" and record.judge["tokenizer_sha256"] == tokenizer.fingerprint
    assert set(record.beside) == {"reference", "shuffled", "unigram"}
    scores = record.scores
    # The reference is the same texts in another order.
    assert scores["gen_ppl"].value == pytest.approx(record.beside["reference"]["gen_ppl"].value, rel=1e-6)
    assert scores["entropy"].value == pytest.approx(scores["entropy_own"].value)
    assert scores["bleu"].value == pytest.approx(100) and scores["rougeL"].value == pytest.approx(100)
    assert scores["rougeL"].count == 5 and "over 5 of 6 texts" in record.remarks["rougeL"], "an empty reference has no word to find"
    assert record.protocol["bleu_tokenize"] == "13a" and "nrefs:1|case:lc" in record.protocol["bleu_signature"]
    assert scores["gen_ppl"].low < scores["gen_ppl"].value < scores["gen_ppl"].high


def test_scoring_twice_gives_the_same_bytes(record: ScoreRecord, judge_folder: Path, sample_folder: Path, tmp_path: Path) -> None:
    reference = Texts(kind="text", path="real.txt", form="lines", texts=TEXTS[::-1], sampling=given())
    again = score(measure(judge_folder), read_texts(sample_folder), name="first", reference=reference, targets=TARGETS, with_controls=True)
    assert record_json(again) == record_json(record)
    path = save_record(record, tmp_path / "deep" / "score.json")
    assert load_record(path) == load_record(path.parent) == record


@pytest.mark.parametrize("name", [f"{group}.{key}" for group, keys in REQUIRED.items() for key in keys])
def test_an_incomplete_record_is_refused(name: str, record: ScoreRecord, tmp_path: Path) -> None:
    group, key = name.split(".")
    for value in (None, ""):
        lacking = dataclasses.replace(record, **{group: {**getattr(record, group), key: value}})
        with pytest.raises(ValueError, match=f"it lacks {name}\\."):
            save_record(lacking, tmp_path / "score.json")
    assert not (tmp_path / "score.json").exists()


def test_a_record_without_a_figure_is_refused(record: ScoreRecord, tmp_path: Path) -> None:
    nan = dataclasses.replace(record.scores["gen_ppl"], value=math.nan)
    with pytest.raises(ValueError, match=r"it lacks beside\.reference\.gen_ppl\."):
        save_record(dataclasses.replace(record, beside={"reference": {"gen_ppl": nan}}), tmp_path / "score.json")
    with pytest.raises(ValueError, match=r"scores\.gen_ppl"):
        save_record(dataclasses.replace(record, scores={"gen_ppl": nan}), tmp_path / "score.json")
    with pytest.raises(ValueError, match="it lacks scores"):
        save_record(dataclasses.replace(record, scores={}), tmp_path / "score.json")


def test_broken_records_are_refused(record: ScoreRecord, tmp_path: Path) -> None:
    path = save_record(record, tmp_path / "score.json")
    whole = json.loads(path.read_text())
    with pytest.raises(FileNotFoundError, match="no score record at"):
        load_record(tmp_path / "other.json")
    for change, said in (
        (lambda plain: plain.update(format=99), "has format 99"),
        (lambda plain: plain.pop("scores"), "fields are not those of one"),
        (lambda plain: plain.update(more=1), "fields are not those of one"),
        (lambda plain: plain["judge"].pop("precision"), "lacks judge.precision"),
        (lambda plain: plain.update(scores=[1]), "fields are not those of one"),
    ):
        plain = json.loads(json.dumps(whole))
        change(plain)
        path.write_text(json.dumps(plain))
        with pytest.raises(ValueError, match=said):
            load_record(path)
    path.write_text(json.dumps(whole)[:-30])
    with pytest.raises(ValueError, match="is not JSON"):
        load_record(path)


def test_comparison_marks_differences_of_protocol(record: ScoreRecord, judge_folder: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    other = read_texts(write_samples(tmp_path / "other", TEXTS, tokenizer, precision="bf16"))
    reference = Texts(kind="text", path="elsewhere.txt", form="lines", texts=TEXTS[::-1], sampling=given())
    same_way = score(measure(judge_folder), other, name="second", reference=reference, targets=TARGETS)
    against_others = score(measure(judge_folder), other, name="second", reference=reference, targets=TARGETS[::-1])
    assert "* second" in compare([record, against_others]) and "protocol.references_sha256: " in compare([record, against_others])
    said = compare([record, same_way])
    assert "measured in the same way" in said and "sampling.precision: fp32 | bf16" in said and "* " not in said
    other_way = score(measure(judge_folder, "bos"), other.first(4), name="third", targets=TARGETS[:4])
    said = compare([record, same_way, other_way])
    lines = said.splitlines()
    assert any(line.startswith("* third") for line in lines) and not any(line.startswith("* second") for line in lines)
    assert "do not compare" in said and "protocol.name: elf | elf | bos" in said and "subject.scored: 5 | 5 | 3" in said
    assert "judge." not in said
    assert len({line.index(word) for line in lines[:1] for word in ("Gen. PPL",)}) == 1


def test_table_has_a_line_for_each_text(record: ScoreRecord) -> None:
    lines = score_table(record).splitlines()
    assert [line.split()[0] for line in lines[1 : lines.index("")]] == ["first", "reference", "shuffled", "unigram"]
    assert all(name in lines[0] for name in ("Gen. PPL", "entropy", "distinct-2", "self-BLEU", "BLEU", "ROUGE-L", "NFE"))


def test_targets_of_another_count_and_controls_without_reference(judge_folder: Path, sample_folder: Path) -> None:
    subject = read_texts(sample_folder)
    with pytest.raises(ValueError, match="6 texts to score but 2 references"):
        score(measure(judge_folder), subject, name="x", targets=[["a"], ["b"]])
    with pytest.raises(ValueError, match="add --real_text"):
        score(measure(judge_folder), subject, name="x", with_controls=True)


def test_without_a_judge_the_other_scores_remain(sample_folder: Path) -> None:
    record = score(Measure(judge=None, resampling=Resampling(resamples=20)), read_texts(sample_folder), name="x", targets=TARGETS)
    assert missing(record) == [] and "gen_ppl" not in record.scores and {"bleu", "distinct_1", "entropy_own"} <= record.scores.keys()


def test_empty_answers_score_bleu_0_and_say_so(judge_folder: Path, sample_folder: Path) -> None:
    """An answer that is empty is a wrong one; without references there is nothing to say of it."""
    empty = dataclasses.replace(read_texts(sample_folder), texts=[""] * 6, ids=[[]] * 6)
    record = score(measure(judge_folder), empty, name="x", targets=TARGETS)
    assert missing(record) == [] and {name: one.value for name, one in record.scores.items()} == dict.fromkeys(
        ("bleu", "rouge1", "rouge2", "rougeL"), 0.0
    )
    assert record.subject["empty"] == 6 and record.remarks["gen_ppl"] == record.remarks["entropy"] == "not defined: all texts are empty"
    with pytest.raises(ValueError, match="all 6 are empty"):
        score(measure(judge_folder), empty, name="x")


def test_what_is_not_defined_is_no_score_and_a_remark(judge_folder: Path) -> None:
    one = Texts(kind="text", path="x.txt", form="lines", texts=["a"], sampling=given())
    record = score(measure(judge_folder, "no-end"), one, name="x", targets=[["!"]])
    assert missing(record) == [] and record.scores.keys() == {"entropy", "distinct_1", "bleu"}
    assert record.remarks["gen_ppl"] == "not defined: each text has a single token, which the protocol no-end does not score"
    assert record.remarks["rouge1"] == "not defined: no reference has a word"
    assert "there are not two" in record.remarks["self_bleu"] and "no text has 2 words" in record.remarks["distinct_2"]


def test_bleus_tokenizer_goes_by_the_script_of_the_references(judge_folder: Path) -> None:
    text = Texts(kind="text", path="x.txt", form="lines", texts=["猫坐在窗台上看雨"], sampling=given())
    plain = measure(judge_folder)
    record = score(plain, text, name="x", targets=[["猫坐在窗台上看着雨"]])
    assert record.protocol["bleu_tokenize"] == "zh" and "tok:zh" in record.protocol["bleu_signature"] and record.scores["bleu"].value > 40
    other = score(dataclasses.replace(plain, bleu_tokenize="13a"), text, name="x", targets=[["猫坐在窗台上看着雨"]])
    assert other.protocol["bleu_tokenize"] == "13a" and other.scores["bleu"].value == 0
    assert "protocol.bleu_tokenize: zh | 13a" in compare([record, other])


def test_texts_that_are_longer_than_the_judge_reads_are_counted(judge_folder: Path, sample_folder: Path) -> None:
    """In the record, in the table and in words: how many, and how much of them was judged."""
    long, short = "the cat sat on the mat and the dog sat on the cat " * 8, "the dog barks"
    texts = Texts(kind="text", path="x.txt", form="lines", texts=[long, short, ""], sampling=given())
    plain = measure(judge_folder)
    record = score(plain, texts, name="long", reference=read_texts(sample_folder))
    assert plain.judge is not None
    tokens = [len(ids) for ids in plain.judge.encode([long, short])]
    limit = plain.judge.card.length
    assert record.subject["truncated"] == 1 and record.subject["tokens"] == sum(tokens)
    assert record.subject["tokens_judged"] == limit + tokens[1] and record.subject["tokens_at_most"] == limit
    share = f"{(limit + tokens[1]) / sum(tokens):.0%}"
    head, line, *rest = score_table(record).splitlines()
    assert head.split()[-2:] == ["empty", "cut"] and line.split()[-4:] == ["1", "1", f"({share}", "read)"]
    said = "\n".join(rest)
    assert f"1 of 2 texts are longer than the {limit} tokens that the judge reads, and are judged by their beginnings: {share} of" in said
    assert "1 of 3 texts are empty" in said and "reference: 1 of 6 texts are empty" in said and "MAUVE: not defined" in said
    assert f"long: 1 of 2 texts are longer than the {limit} tokens" in compare([record, record])
    assert "cut" not in score_table(score(plain, read_texts(sample_folder), name="x")).splitlines()[0].split()


def test_answers_that_end_where_the_room_does_are_counted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Of conditional models; other texts fill their rows by nature."""
    longest = max(map(len, tokenizer.encode_batch(TEXTS)))
    facts = SourceFacts(sha256="ef" * 32, lines=len(TEXTS), per_source=1)
    for sources, said in ((facts, True), (SourceFacts(), False)):
        folder = write_samples(tmp_path / f"samples-{said}", TEXTS, tokenizer, sources=sources, target_length=longest)
        record = score(Measure(judge=None, resampling=Resampling(resamples=0)), read_texts(folder), name="x", targets=TARGETS)
        assert record.subject.get("unended") == (1 if said else None)
        assert ("1 of 6 answers have no end" in score_table(record)) == said
