"""What can be scored, and what is refused: folders of samples, files, prepared data."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from score_subjects import TEXTS, write_samples

from elf.data.tokenizer import Tokenizer
from elf_platform.evaluate.controls import shuffled, unigram
from elf_platform.evaluate.texts import read_texts


def test_samples_are_read_with_their_ids(sample_folder: Path, tokenizer: Tokenizer) -> None:
    found = read_texts(sample_folder)
    assert found.kind == "samples" and found.texts == TEXTS and found.ids == tokenizer.encode_batch(TEXTS)
    assert found.kept == [0, 1, 2, 4, 5] and found.first(2).texts == TEXTS[:2] and found.first(0) is found


def test_half_written_and_damaged_samples_are_refused(tmp_path: Path, sample_folder: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="is half-written"):
        read_texts(write_samples(tmp_path / "half", TEXTS, tokenizer, done=False))
    copy = shutil.copytree(sample_folder, tmp_path / "copy")
    (copy / "samples.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="was altered or damaged"):
        read_texts(copy)
    with pytest.raises(FileNotFoundError, match="there is nothing at"):
        read_texts(tmp_path / "nowhere")


def test_text_files(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one\ntwo\n\nthree\n\n\n\nfour\n")
    assert read_texts(file).texts == ["one two", "three", "four"]
    assert read_texts(file, unit="line").texts == ["one", "two", "", "three", "", "", "", "four"]
    (tmp_path / "b.txt").write_text("five")
    assert read_texts(tmp_path).texts == ["one two", "three", "four", "five"]
    (tmp_path / "c.jsonl").write_text('{"text": "six"}\n\n{"text": ""}\n')
    assert read_texts(tmp_path / "c.jsonl").texts == ["six", "", ""], "a blank line keeps its place, as among sources"
    (tmp_path / "c.jsonl").write_text('{"text": "six"}\n{"body": 1}\n')
    with pytest.raises(ValueError, match=r"c\.jsonl:2 has no key 'text'; its keys are body"):
        read_texts(tmp_path / "c.jsonl")


def test_empty_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" \n\n \n")
    with pytest.raises(ValueError, match="holds no text"):
        read_texts(tmp_path / "a.txt")
    assert read_texts(tmp_path / "a.txt", unit="line").kept == [], "lines keep their places, as answers that may all be empty"
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_texts(tmp_path / "a.txt")


def test_controls_keep_what_they_say() -> None:
    texts = ["one word and one more word in order", "two words"]
    mixed, drawn = shuffled(texts, seed=1), unigram(texts, seed=1)
    assert [Counter(text.split()) for text in mixed] == [Counter(text.split()) for text in texts] and mixed != texts
    assert [len(text.split()) for text in drawn] == [8, 2]
    assert {word for text in drawn for word in text.split()} <= {word for text in texts for word in text.split()}
    assert (mixed, drawn) == (shuffled(texts, seed=1), unigram(texts, seed=1)) and mixed != shuffled(texts, seed=2)
