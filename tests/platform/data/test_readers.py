"""Reading parts: counts, skipping, refusing under strict, and the limit on the size of a document."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elf_platform.config import DataConfig
from elf_platform.data.corpora import resolve
from elf_platform.data.parts import CorpusPart
from elf_platform.data.readers import ReadCounts, read_documents


def part_of(path: Path, *, shard_mb: float = 1.0) -> CorpusPart:
    (part,) = resolve(DataConfig(paths=(str(path),), shard_mb=shard_mb)).parts
    return part


def read(path: Path, counts: ReadCounts | None = None, *, strict: bool = False, max_bytes: int = 1000) -> list[str]:
    return list(read_documents(part_of(path), strict=strict, counts=counts or ReadCounts(), max_bytes=max_bytes))


def test_counts_of_a_plain_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n\nzwei Häuser\n\n\n \nthree", encoding="utf-8")
    counts = ReadCounts()
    documents = read(path, counts, strict=True)
    assert documents == ["one", "zwei Häuser", "three"]
    assert counts == ReadCounts(documents=3, bytes=len("".join(documents).encode()))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{broken", "is not JSON"),
        (b"[1, 2]", "is a JSON list"),
        (b'{"body": "x"}', "has no key 'text'; its keys are body"),
        (b'{"text": 5}', "holds a int under 'text'"),
        (b'{"text": "\xff"}', "is not UTF-8"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_a_bad_line_is_skipped_with_a_count_or_refused_by_its_number(tmp_path: Path, line: bytes, why: str) -> None:
    path = tmp_path / "a.jsonl"
    good = b'{"text": "' + b"good " * 20_000 + b'"}\n'  # beyond the first 64 KiB, so that the file as a whole counts as text
    path.write_bytes(good + b"\n" + line + b'\n{"text": "last"}\n')
    counts = ReadCounts()
    assert [text.split()[0] for text in read(path, counts, max_bytes=10**6)] == ["good", "last"]
    assert (counts.documents, counts.skipped_lines, counts.skipped_files) == (2, 1, 0)
    assert f"{path}:3 {why}" in counts.messages[0]
    with pytest.raises(ValueError, match=r"a\.jsonl:3 " + why.split("(")[0].strip()):
        read(path, strict=True, max_bytes=10**6)


def test_line_numbers_count_from_the_start_of_the_file_in_every_part(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [json.dumps({"text": f"row {i}"}) for i in range(100)]
    rows[77] = "broken"
    path.write_text("\n".join(rows))
    counts = ReadCounts()
    corpus = resolve(DataConfig(paths=(str(path),), shard_mb=0.0002))
    documents = [text for part in corpus.parts for text in read_documents(part, strict=False, counts=counts)]
    assert len(corpus.parts) > 5
    assert len(documents) == 99
    assert [message.split(" ")[0] for message in counts.messages] == [f"{path}:78"]


def test_empty_and_null_documents_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"text": ""}\n{"text": " \\n"}\n{"text": null}\n')
    pq.write_table(pa.table({"text": ["x", "", None, "\t"]}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        counts = ReadCounts()
        assert read(tmp_path / name, counts, strict=True) == ["x"]
        assert (counts.documents, counts.empty_documents) == (1, 3)


def test_halves_of_surrogate_pairs_in_json_do_not_reach_the_caller(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud800b \\ud83d\\ude00"}\n')
    assert read(tmp_path / "a.jsonl", strict=True) == ["a\ufffdb 😀"]


def test_dictionary_encoded_text_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array(["x", "y", "x"]).dictionary_encode()}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ["x", "y", "x"]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_long_documents_come_in_pieces(tmp_path: Path, name: str) -> None:
    long = " ".join(f"word{i}" for i in range(500))
    path = tmp_path / name
    if name == "a.txt":
        path.write_text(f"{long}\n\nshort")
    elif name == "a.jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in (long, "short")))
    else:
        pq.write_table(pa.table({"text": [long, "short"]}), path)
    counts = ReadCounts()
    pieces = read(path, counts, strict=True, max_bytes=300)
    assert "".join(pieces) == long + "short"
    assert all(len(piece) <= 300 for piece in pieces)
    assert (counts.documents, counts.split_documents, counts.bytes) == (2, 1, len(long) + 5)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("binary.txt", bytes(range(256)) * 10),
        ("utf16.jsonl", '{"text": "x"}\n'.encode("utf-16")),
        ("latin1.txt", "naïve café\n\n".encode("latin-1") * 50),
        ("cut.txt.gz", gzip.compress(b"some words\n\n" * 100_000)[:-2000]),
        ("broken.jsonl.gz", b"\x1f\x8b" + bytes(50)),
        ("broken.txt.zst", b"(\xb5/\xfd" + b"broken" * 9),
        ("broken.parquet", b"PAR1" + bytes(100) + b"PAR1"),
        ("broken.arrow", b"ARROW1\0\0" + bytes(100)),
    ],
)
def test_an_unreadable_file_is_skipped_with_a_count_or_refused_by_name(tmp_path: Path, name: str, raw: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(raw)
    (tmp_path / "whole.txt").write_text("whole")
    counts = ReadCounts()
    parts = resolve(DataConfig(paths=(str(tmp_path),))).parts
    documents = [text for part in parts for text in read_documents(part, strict=False, counts=counts)]
    assert documents[-1] == "whole"
    assert set(documents) <= {"some words", "whole"}  # what came before the damage is kept
    assert counts.skipped_files == 1
    assert name in counts.messages[0]
    with pytest.raises(ValueError, match=name):
        for part in resolve(DataConfig(paths=(str(path),), strict=True)).parts:
            list(read_documents(part, strict=True, counts=ReadCounts()))


def test_text_that_is_not_utf8_inside_a_parquet_file(tmp_path: Path) -> None:
    bad = pa.array([b"fine", b"\xff\xfe"]).view(pa.string())
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    counts = ReadCounts()
    assert read(tmp_path / "a.parquet", counts) == []
    assert counts.skipped_files == 1
    with pytest.raises(ValueError, match=r"a\.parquet.*UTF"):
        read(tmp_path / "a.parquet", strict=True)


def test_a_document_that_is_not_utf8_is_skipped_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine words\n\n" * 10_000 + b"caf\xe9\n\nthe end\n")
    counts = ReadCounts()
    assert read(path, counts)[-1] == "the end"
    assert (counts.documents, counts.skipped_lines) == (10_001, 1)
    assert f"{path}:20001 is not UTF-8" in counts.messages[0]
    with pytest.raises(ValueError, match=r"a\.txt:20001"):
        read(path, strict=True)


def test_a_file_that_has_gone_is_an_error_even_when_not_strict(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")
    part = part_of(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="every node"):
        list(read_documents(part, strict=False, counts=ReadCounts()))
