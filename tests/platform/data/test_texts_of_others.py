"""Texts that others' tools write: every part of the product takes them for the same texts, and says what it had to guess."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_folders import fill, task_of
from small_artefact import small_artefact, small_tokenizer

from elf_platform.cli import parse_settings
from elf_platform.config import DataConfig, TokenizerConfig
from elf_platform.data.prepare import PreparedData, prepare
from elf_platform.data.reader import RowReader
from elf_platform.evaluate.command import EvaluateCommand, evaluate
from elf_platform.evaluate.texts import read_texts
from elf_platform.sampling.folder import read_samples

OTHERS = "\n\n".join(f"a plain text, number {i}" for i in range(20))


def here(jobs: Sequence[Any], task: Callable[[Any], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from map(task, jobs)


def prepared(path: Path, **changes: Any) -> PreparedData:
    fields: dict[str, Any] = {"tokenizer": TokenizerConfig(vocab_size=300), "length": 64, "packing": "document", "valid_fraction": 0.1}
    return prepare(DataConfig(paths=(str(path),), **fields | changes), path.parent / "storage", progress=False, each=here)


def rows_of(data: PreparedData) -> set[str]:
    texts = []
    for split in ("train", "valid"):
        reader = RowReader(data.folder, split)  # type: ignore[arg-type]
        batch = reader.read(np.arange(len(reader)))
        texts += [reader.tokenizer.decode(ids[: int(n)]) for ids, n in zip(batch.ids_BL.tolist(), batch.length_B, strict=True)]
    return set(texts)


def test_words_between_controls_stay_words(tmp_path: Path) -> None:
    path = tmp_path / "controls.txt"
    path.write_bytes(f"quiet\x0bladder\x0cengine\x85pocket\x1cthunder\x1dlamp\x1esea\x1fdog\n\n{OTHERS}".encode())
    (found,) = [text for text in rows_of(prepared(path)) if "quiet" in text]
    assert found.split() == ["quiet", "ladder", "engine", "pocket", "thunder", "lamp", "sea", "dog"]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_preparation_and_scoring_see_the_same_paragraphs(tmp_path: Path, ends: str) -> None:
    expected = ["first text of some words", "second text of some words", "third text"]
    path = tmp_path / "blanks.txt"
    lines = ["\ufefffirst text of", "some words", " ", "\ufeffsecond text of some words", "\t\x0c", "third text", ""]
    path.write_bytes(ends.join(lines).encode())
    assert {" ".join(text.split()) for text in rows_of(prepared(path))} == set(expected)
    assert [" ".join(text.split()) for text in read_texts(path).texts] == expected


def test_halves_of_characters_can_be_prepared_sampled_for_and_scored(tmp_path: Path) -> None:
    half = '"a broken \\ud83d emoji and \\ud83d\\ude00"'
    whole = "a broken \ufffd emoji and 😀"
    texts, sources = tmp_path / "texts.jsonl", tmp_path / "sources.jsonl"
    texts.write_text("".join(f'{{"text": {text}}}\n' for text in (half, *(f'"the dog number {i}"' for i in range(9)))))
    sources.write_text(f'{{"source": {half}}}\n{{"source": "the dog"}}\n')
    assert whole in rows_of(prepared(texts))
    artefact = small_artefact(tmp_path / "artefact", length=48, source_length=24)
    fill(task_of(artefact, sources=sources), tmp_path / "samples")
    assert [row["source"] for row in read_samples(tmp_path / "samples")[1]] == [whole, "the dog"]
    lines = [json.loads(line) for line in (tmp_path / "samples/samples.jsonl").read_text().splitlines()]
    assert lines[0]["source"] == whole
    scored = read_texts(texts).texts
    assert scored[0] == whole and small_tokenizer().decode(small_tokenizer().encode_batch(scored)[0]) == whole  # as a judge takes it
    words = [str(texts), "--judge", "none", "--references", str(texts), "--resamples", "0", "--tracking.kind", "null"]
    record = evaluate(parse_settings(EvaluateCommand, [*words, "--out", str(tmp_path / "score.json")], prog="evaluate"))
    assert record.scores["bleu"].value == pytest.approx(100)


def test_a_text_with_a_document_in_each_line_is_told_of_and_can_be_read_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(f"document number {i}" for i in range(1234)) + f"\n\n{OTHERS}")
    data = prepared(path)
    said = capsys.readouterr().err
    assert data.manifest.read.documents == 21
    assert "1 documents of .txt files have 100 lines and more and no blank line, and each was read as ONE document" in said
    assert f": {path} (1,234 lines). Where each line" in said
    assert "set data.unit line" in said
    of_lines = prepared(path, unit="line")
    assert of_lines.manifest.read.documents == 1254 and "ONE document" not in capsys.readouterr().err
    assert of_lines.folder != data.folder and "document number 77" in {text.strip() for text in rows_of(of_lines)}
    assert (data.manifest.data.unit, prepared(path).reused) == ("paragraph", True)
    for columns in ({"text_column": "1"}, {"source_column": "1", "text_column": "2"}):
        with pytest.raises(ValueError, match=r"data\.unit line has no effect where columns are asked for"):
            DataConfig(unit="line", packing="document", **columns)


def test_one_document_alone_leads_to_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("one line\nand another\nand a third")
    with pytest.raises(ValueError, match=r"at every line with data\.unit line"):
        prepared(path)
    assert prepared(path, unit="line").manifest.read.documents == 3
