"""Files as others leave them: valid ones that were refused or read in two ways, and broken ones that were dropped without a word."""

import gzip
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elf_platform.cli import parse_settings
from elf_platform.config import DataConfig
from elf_platform.data.corpora import resolve
from elf_platform.data.pairs import part_pairs
from elf_platform.data.readers import ReadCounts, read_documents
from elf_platform.evaluate.command import EvaluateCommand, evaluate
from elf_platform.evaluate.texts import read_references, read_texts
from elf_platform.sampling.sources import read_sources

TARGETS = ["a house by the lake", "two dogs are running", "three cats are sleeping"]
SOURCES = ["ein Haus am See", "zwei Hunde laufen", "drei Katzen schlafen"]


def read(*paths: Path, counts: ReadCounts | None = None, strict: bool = True, text_column: str = "text") -> list[str]:
    corpus = resolve(DataConfig(paths=tuple(map(str, paths)), strict=strict, text_column=text_column))
    return [text for part in corpus.parts for text in read_documents(part, strict=strict, counts=counts or ReadCounts())]


def json_lines(documents: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in documents).encode()


def wide(raw: bytes) -> bytes:
    """A zstd frame like those of zstd --long=31 on a pipe: its window is 2 GiB, and it does not say how long its content is."""
    frame = bytes(pa.compress(raw, "zstd", asbytes=True))
    magic, descriptor = struct.unpack_from("<IB", frame)
    assert magic == 0xFD2FB528 and not descriptor & 3, "no dictionary"
    single = descriptor >> 5 & 1
    header = 5 + (not single) + (single, 2, 4, 8)[descriptor >> 6]
    return frame[:4] + bytes([descriptor & 0x04, (31 - 10) << 3]) + frame[header:]


def test_zstd_with_a_window_of_2_gib_is_read_wherever_texts_are(tmp_path: Path) -> None:
    documents = [f"document {i} " + "with words " * 50 for i in range(3000)]
    path = tmp_path / "long31.jsonl.zst"
    skipped = struct.pack("<II", 0x184D2A53, 5) + b"notes"
    path.write_bytes(skipped + wide(json_lines(documents[:1500])) + wide(json_lines(documents[1500:])))
    with pytest.raises(OSError, match="too much memory"):
        pa.CompressedInputStream(pa.OSFile(str(path)), "zstd").read()
    assert read(path) == documents == read_sources(path, "text") == read_texts(path).texts


def test_damaged_zstd_of_a_wide_window_is_counted_or_refused(tmp_path: Path) -> None:
    path, whole = tmp_path / "cut.jsonl.zst", wide(json_lines(TARGETS * 1000))
    for raw in (whole[:-30], whole[:20] + bytes(30) + whole[50:]):
        path.write_bytes(raw)
        counts = ReadCounts()
        read(path, counts=counts, strict=False)
        assert counts.skipped_files == 1
        with pytest.raises(ValueError, match=r"cut\.jsonl\.zst cannot be read as jsonl"):
            read(path)


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_gzip_that_is_padded_with_zeros_is_read(tmp_path: Path, size: int) -> None:
    path = tmp_path / "tape.txt.gz"
    text = ("word " * size)[: size - 1]
    path.write_bytes(gzip.compress(text.encode()) + gzip.compress(b"\n\nthe end\n") + bytes(1000))
    assert read(path) == [text, "the end"]


def test_a_file_of_which_all_texts_are_null_is_read_and_counted(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": TARGETS, "id": [1, 2, 3]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": [None, None], "id": [4, 5]}), tmp_path / "b.parquet")
    counts = ReadCounts()
    assert read(tmp_path, counts=counts) == TARGETS and (counts.documents, counts.empty_documents) == (3, 2)
    assert read_sources(tmp_path / "b.parquet", "text") == ["", ""]


def write_twice(path: Path) -> None:
    table = pa.table([["a"], ["b"], ["c"]], names=["text", "text", "other"])
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".arrow":
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    else:
        path.write_text("text,text,other\na,b,c\n".replace(",", "\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.csv", "a.tsv"])
def test_a_column_that_is_there_twice_is_called_that_and_the_others_are_read(tmp_path: Path, name: str) -> None:
    write_twice(tmp_path / name)
    for refused in (lambda: read(tmp_path / name), lambda: read_sources(tmp_path / name, "text"), lambda: read_texts(tmp_path / name)):
        with pytest.raises(ValueError, match=rf"{name}.* has 2 columns called 'text', .*rename all but one"):
            refused()
    assert read(tmp_path / name, text_column="other") == ["c"]


def test_a_key_that_is_there_twice_is_no_text(tmp_path: Path) -> None:
    lines = ['{"text": "one", "n": {"text": 1}}', '{"text": "two", "text": "three"}', '{"id": 1, "id": 2, "text": "\\"text\\" four"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "a.json").write_text(f"[{','.join(lines)}]")
    for name, place in (("a.jsonl", ":2"), ("a.json", ", record 2")):
        counts = ReadCounts()
        assert read(tmp_path / name, counts=counts, strict=False) == ["one", '"text" four'] and counts.skipped_lines == 1
        for refused in (lambda name=name: read(tmp_path / name), lambda name=name: read_texts(tmp_path / name)):
            with pytest.raises(ValueError, match=rf"{name}{place} holds a key twice under 'text'"):
                refused()


@pytest.mark.parametrize("ascii", [True, False])
def test_a_key_in_any_script_that_is_there_twice_is_no_text(tmp_path: Path, ascii: bool) -> None:
    key = json.dumps("größe", ensure_ascii=ascii)
    (tmp_path / "a.jsonl").write_text(f'{{{key}: "one", "größe": "two"}}\n{{{key}: "three"}}\n')
    counts = ReadCounts()
    assert read(tmp_path / "a.jsonl", counts=counts, strict=False, text_column="größe") == ["three"] and counts.skipped_lines == 1


def test_a_name_that_is_not_utf8_is_named_and_the_other_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    path.write_text("text")
    for refused in (lambda: read(tmp_path), lambda: read(tmp_path / "*.txt"), lambda: read_sources(path), lambda: read_texts(path)):
        with pytest.raises(ValueError, match=r"1 with names that are not UTF-8 \(caf\\udce9\.txt\)"):
            refused()
    with pytest.raises(ValueError, match=r"caf\\udce9\.txt.* UTF-8"):
        read(path)
    (tmp_path / "b.txt").write_text("other")
    assert read(tmp_path, strict=False) == ["other"]


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.tsv", "\t")])
def test_a_text_is_not_cut_at_a_separator_in_it(tmp_path: Path, name: str, mark: str) -> None:
    rows = ["id,text", "1,plain", "2,trailing separators,,", "3,the one, and the other", "4,end"]
    path = tmp_path / name
    path.write_text("\n".join(rows).replace(",", mark))
    for refused in (lambda: read(path), lambda: read_references(path), lambda: read_texts(path)):
        with pytest.raises(ValueError, match=rf"{name}:4 has 3 columns, but the first line names 2"):
            refused()
    counts = ReadCounts()
    assert read(path, counts=counts, strict=False) == ["plain", "trailing separators", "end"] and counts.skipped_lines == 1
    assert read(path, text_column="2")[3] == "the one"  # without names any number of columns may follow


def test_line_breaks_and_quotes_in_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.CSV"
    path.write_bytes('\ufeffid,text\r\n1,"two\r\nlines, ""quoted"""\r\n2,plain\r\n3,\r\n'.encode())
    assert read(path) == ["two\nlines, \"quoted\"", "plain"]
    assert read_texts(path).texts == ["two\nlines, \"quoted\"", "plain", ""]
    path.write_text('id,text\n1,"two\nlines"\n2,"never closed\n3,more\n')
    with pytest.raises(ValueError, match=r"a\.CSV cannot be read as csv: line 4: .*stand in double quotes"):
        read(path)
    counts = ReadCounts()
    assert read(path, counts=counts, strict=False) == ["two\nlines"] and counts.skipped_files == 1
    path.write_bytes(b"id,text\n1,caf\xe9\n2,fine\n" + b"3,more\n" * 20_000 + b"4,caf\xe9\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        read(path)
    path.write_bytes(b"id,text\n" + b"3,more\n" * 20_000 + b"4,caf\xe9\n5,end\n")
    counts = ReadCounts()
    assert read(path, counts=counts, strict=False)[-1] == "end" and counts.skipped_lines == 1
    with pytest.raises(ValueError, match=r"a\.CSV:20002 is not UTF-8"):
        read(path)


def test_lines_that_hold_blanks_separate_paragraphs_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "blankspace.txt"
    path.write_text("First text of some words.\n \nSecond text of some words.\n\t\nThird text of some words.\n")
    assert read(path) == read_texts(path).texts == [f"{nth} text of some words." for nth in ("First", "Second", "Third")]


def write_references(folder: Path) -> list[Path]:
    """The same targets, in each form that references come in."""
    rows = [{"source": source, "text": target} for source, target in zip(SOURCES, TARGETS, strict=True)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    several = "".join(json.dumps({"text": ["another reference", target]}) + "\n" for target in TARGETS)
    made: dict[str, Callable[[Path], object]] = {
        "targets.txt": lambda path: path.write_text("\n".join(TARGETS)),
        "targets.TXT.gz": lambda path: path.write_bytes(gzip.compress("\r\n".join(TARGETS).encode())),
        "pairs.jsonl": lambda path: path.write_text(lines), "pairs.ndjson": lambda path: path.write_text(lines),
        "pairs.JSONL.GZ": lambda path: path.write_bytes(gzip.compress(lines.encode())),
        "pairs.json": lambda path: path.write_text(json.dumps(rows, indent=1)),
        "listrefs.jsonl": lambda path: path.write_text(several),
        "pairs.tsv": lambda path: path.write_text("text\tsource\n" + "".join(f"{t}\t{s}\n" for s, t in zip(SOURCES, TARGETS, strict=True))),
        "pairs.csv": lambda path: path.write_text("source,text\n" + "".join(f'{s},"{t}"\n' for s, t in zip(SOURCES, TARGETS, strict=True))),
        "pairs.parquet": lambda path: pq.write_table(pa.Table.from_pylist(rows), path),
        "several.parquet": lambda path: pq.write_table(pa.table({"text": [["another reference", target] for target in TARGETS]}), path),
    }
    for name, write in made.items():
        write(folder / name)
    return [folder / name for name in made]


def test_references_score_100_in_every_form(tmp_path: Path) -> None:
    answers = tmp_path / "answers.txt"
    answers.write_text("\n".join(TARGETS) + "\n")
    (tmp_path / "forms").mkdir()
    for path in write_references(tmp_path / "forms"):
        words = (str(answers), "--unit", "line", "--judge", "none", "--resamples", "0", "--references", str(path))
        record = evaluate(
            parse_settings(
                EvaluateCommand, [*words, "--tracking.kind", "null", "--out", str(tmp_path / "score.json")], prog="evaluate"
            )
        )
        assert record.scores["bleu"].value == pytest.approx(100) and record.scores["rougeL"].value == pytest.approx(100), path.name
        assert record.protocol["references_sha256"] != "none"
        if path.name.startswith("pairs"):
            assert read_sources(path) == SOURCES


def test_scripts_and_lone_surrogates_are_read_as_text(tmp_path: Path) -> None:
    russian = ["кошка сидит на окне", "собака бежит по улице"]
    (tmp_path / "russian.txt").write_text("\n".join(russian) + "\n")
    assert read_texts(tmp_path / "russian.txt", unit="line").texts == russian
    assert read_references(tmp_path / "russian.txt") == [[text] for text in russian]
    (tmp_path / "broken.jsonl").write_text('{"source": ["ein \\ud83d Haus"], "text": "a \\ud83d house"}\n')
    assert read_sources(tmp_path / "broken.jsonl") == ["ein \ufffd Haus"]
    assert read_texts(tmp_path / "broken.jsonl").texts == ["a \ufffd house"]


def test_further_targets_of_lists_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "lists.jsonl"
    path.write_text('{"source": ["one", "two"], "text": ["first", "second", "third"]}\n{"source": "x", "text": []}\n')
    config = DataConfig(paths=(str(path),), source_column="source", source_length=8, packing="document")
    counts = ReadCounts()
    (part,) = resolve(config).parts
    assert list(part_pairs(part, strict=True, counts=counts)) == [("one two", "first"), ("x", "")] and counts.further_targets == 2
    with pytest.raises(ValueError, match=r"lists\.jsonl:1 holds a list, not text"):
        read(path)


def test_the_column_of_references_is_found_or_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("source,target\nx,one\ny,\n\n")
    assert read_references(path) == [["one"], [""], [""]] and read_references(path, "source") == [["x"], ["y"], [""]]
    path.write_text("question,answer\nx,one\n")
    with pytest.raises(ValueError, match=r"a\.csv:1 has no column 'text'; its first line names question, answer.*--references_column"):
        read_references(path)
    assert read_references(path, "2") == [["answer"], ["one"]], "numbers say that the first line holds no names"
