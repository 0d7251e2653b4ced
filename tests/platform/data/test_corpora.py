"""From paths to parts: which files are found, how they are cut, what the fingerprint depends on, what is refused."""

import gzip
import json
import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from elf_platform.config import DataConfig
from elf_platform.data import hub_dataset
from elf_platform.data.corpora import Corpus, resolve
from elf_platform.data.parts import CorpusPart
from elf_platform.data.readers import ReadCounts, read_documents
from elf_platform.data.selection import glob_filesystem

DOCUMENTS = [f"document {i}, with some words" for i in range(40)]


def config(*paths: Path | str, shard_mb: float = 1.0, text_column: str = "text", strict: bool = False) -> DataConfig:
    return DataConfig(paths=tuple(map(str, paths)), shard_mb=shard_mb, text_column=text_column, strict=strict)


def read(corpus: Corpus) -> list[str]:
    return [text for part in corpus.parts for text in read_documents(part, strict=True, counts=ReadCounts())]


def write(path: Path, documents: list[str] = DOCUMENTS) -> Path:
    """A corpus file in the format of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": list(range(len(documents))), "text": documents})
    name = path.name.lower()
    if ".txt" in name:
        raw = "\n\n".join(documents).encode()
    elif "json" in name:
        raw = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(documents)).encode()
    elif name.endswith(".parquet"):
        pq.write_table(table, path, row_group_size=7)
        return path
    else:
        new = pa.ipc.new_stream if "stream" in name else pa.ipc.new_file
        with new(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
        return path
    codec = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    with pa.CompressedOutputStream(str(path), codec) if codec else path.open("wb") as file:
        file.write(raw)
    return path


NAMES = ["a.txt", "a.txt.gz", "a.txt.zst", "a.jsonl", "a.ndjson", "a.jsonl.gz", "a.JSONL.zst", "a.parquet", "a.arrow", "stream.arrow"]


@pytest.mark.parametrize("name", NAMES)
def test_every_format_gives_the_same_documents(tmp_path: Path, name: str) -> None:
    assert read(resolve(config(write(tmp_path / name)))) == DOCUMENTS


@pytest.mark.parametrize(("name", "parts"), [("a.txt", 6), ("a.jsonl", 10), ("a.parquet", 6), ("a.arrow", 6)])
def test_big_files_are_cut_into_parts_without_losing_or_doubling_a_document(tmp_path: Path, name: str, parts: int) -> None:
    path = write(tmp_path / name)
    corpus = resolve(config(path, shard_mb=0.0002))
    assert len(corpus.parts) >= parts
    assert [part.index for part in corpus.parts] == list(range(len(corpus.parts)))
    assert read(corpus) == DOCUMENTS
    assert max(part.size for part in corpus.parts) < path.stat().st_size / 3


def test_members_of_a_concatenated_gzip_file_are_all_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"one\n\n") + gzip.compress(b"two\n"))
    assert read(resolve(config(path))) == ["one", "two"]


def test_small_files_share_a_part_in_sorted_order(tmp_path: Path) -> None:
    for i in range(30):
        write(tmp_path / f"{i:02}.txt", [f"file {i}"])
    corpus = resolve(config(tmp_path, shard_mb=0.00005))
    assert 3 < len(corpus.parts) < 20
    assert read(corpus) == [f"file {i}" for i in range(30)]
    assert pickle.loads(pickle.dumps(corpus)) == corpus


def test_folders_globs_and_uris_name_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = [write(tmp_path / name, [name]) for name in ("b.txt", "deep/er/c.jsonl", "deep/a b%20.txt")]
    write(tmp_path / ".hidden/d.txt")
    write(tmp_path / "deep/.e.txt")
    (tmp_path / "README.md").write_text("no corpus")
    (tmp_path / "loop").symlink_to(tmp_path)
    every = sorted(map(str, inside))

    def found(*paths: Path | str) -> list[str]:
        return [piece.uri for part in resolve(config(*paths)).parts for piece in (part, *part.rest)]

    assert found(tmp_path) == every
    assert found(tmp_path, inside[0], tmp_path / "*.txt") == every
    assert found(tmp_path / "deep/**/*") == every[1:]
    assert found(tmp_path / "*.txt") == found(tmp_path / "[a-c].txt") == [str(inside[0])]
    assert found(f"file://{tmp_path}/b.txt") == [str(inside[0])]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert found("~/b.txt") == [str(inside[0])]
    monkeypatch.chdir(tmp_path)
    assert found("b.txt") == [str(inside[0])]


def test_a_name_with_glob_characters_is_taken_literally_when_it_exists(tmp_path: Path) -> None:
    assert read(resolve(config(write(tmp_path / "what [1].txt")))) == DOCUMENTS


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.txt", ["a.txt"]),
        ("**/*.txt", ["a.txt", "x/b.txt", "x/y/c.txt"]),
        ("x/**", ["x/b.txt", "x/y/c.txt", "x/y/d1.parquet"]),
        ("x/*/*[0-9].parquet", ["x/y/d1.parquet"]),
        ("*/*/[!c]*", ["x/y/d1.parquet"]),
        ("none*", []),
    ],
)
def test_globs_on_a_pyarrow_filesystem(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    for name in ("a.txt", "x/b.txt", "x/y/c.txt", "x/y/d1.parquet", "x/.h/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = glob_filesystem(pafs.LocalFileSystem(), f"{tmp_path}/{pattern}")
    assert [os.path.relpath(info.path, tmp_path) for info in found] == expected


def test_the_fingerprint_is_what_the_files_hold_in_their_order_and_the_settings(tmp_path: Path) -> None:
    for name in ("a.txt", "sub/b.jsonl"):
        write(tmp_path / "one" / name)

    def of(**changes: object) -> str:
        return resolve(config(*changes.pop("paths", [tmp_path / "one"]), **changes)).fingerprint  # type: ignore[misc, arg-type]

    first = of()
    shutil.copytree(tmp_path / "one", tmp_path / "copied")
    os.utime(tmp_path / "copied/a.txt", ns=(10**18, 10**18 + 1))
    assert of() == first == of(paths=[tmp_path / "copied"]) == of(paths=[tmp_path / "one/sub", tmp_path / "one/a.txt"])
    (tmp_path / "one/sub/b.jsonl").rename(tmp_path / "one/sub/renamed.jsonl")
    assert of() == first
    others = [of(shard_mb=2.0), of(paths=[tmp_path / "one/a.txt"])]
    content = (tmp_path / "one/a.txt").read_bytes()
    (tmp_path / "one/a.txt").write_bytes(content.replace(b"document 3", b"document x"))
    others.append(of())
    (tmp_path / "one/a.txt").rename(tmp_path / "one/sub/z.txt")
    others.append(of())
    assert len({first, *others}) == 5


def test_empty_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="corpus is empty"):
        resolve(config(tmp_path))
    write(tmp_path / "full.txt")
    assert read(resolve(config(tmp_path))) == DOCUMENTS


@pytest.mark.parametrize("pattern", ["gone.txt", "gone/", "*.txt", "**/*.parquet"])
def test_what_is_not_there_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(FileNotFoundError, match="nothing matches"):
        resolve(config(tmp_path / pattern))


def test_unknown_types_are_refused_naming_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "book.pdf").write_bytes(b"%PDF")
    for path in (tmp_path, tmp_path / "book.pdf", tmp_path / "*"):
        with pytest.raises(ValueError, match=r"1 of no known type \(book\.pdf\).*\.txt, \.tsv, \.csv, \.jsonl"):
            resolve(config(path))
    with pytest.raises(ValueError, match="cannot be opened"):
        resolve(config("https://example.invalid/a.txt"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet", "a.arrow", "stream.arrow"])
def test_a_missing_or_wrong_column_is_refused_naming_the_others(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    with pytest.raises(ValueError, match=r"'body'.*id, text.*data\.text_column"):
        resolve(config(path, text_column="body"))
    with pytest.raises(ValueError, match=r"'id'.*int.*not text.*text.*data\.text_column"):
        resolve(config(path, text_column="id"))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.jsonl.gz"])
def test_a_corrupt_file_is_refused_when_strict_and_left_to_the_reader_when_not(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"this is no such thing")
    with pytest.raises(ValueError, match=name):
        resolve(config(path, strict=True))
    counts = ReadCounts()
    corpus = resolve(config(path))
    assert [list(read_documents(part, strict=False, counts=counts)) for part in corpus.parts] == [[]]
    assert counts.skipped_files == 1


def test_a_part_size_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.shard_mb"):
        resolve(config(tmp_path, shard_mb=0))


def test_no_path_means_the_built_in_corpus() -> None:
    corpus = resolve(DataConfig())
    assert corpus.name == "builtin"
    assert {"builtin:python", "builtin:torch"} <= {part.uri for part in corpus.parts}
    assert all(part.version for part in corpus.parts)
    stale = CorpusPart(index=0, uri="builtin:torch", format="builtin", version="0.4.1")
    with pytest.raises(ValueError, match=r"torch 0\.4\.1.*same packages on every node"):
        list(read_documents(stale, strict=False, counts=ReadCounts()))


def test_the_hub_is_refused_in_seconds_when_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"hub:nobody/nothing.*data\.paths"):
        resolve(config("hub:nobody/nothing"))
    with pytest.raises(ValueError, match="hub:NAME:SPLIT"):
        resolve(config("hub:a:b:c:d"))


def test_columns_of_the_hub_are_checked_to_their_last_field(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"translation": [{"de": "x", "en": "y"}], "n": [1]})
    data = SimpleNamespace(
        info=SimpleNamespace(download_checksums=None), num_rows=1, data=table, features=SimpleNamespace(arrow_schema=table.schema),
        _fingerprint="made",
    )
    monkeypatch.setattr(hub_dataset, "_load", lambda uri: data)
    assert resolve(config("hub:made", text_column="translation.en")).parts[0].format == "hub"
    for column, message in (("translation.fr", "hub:made has no column 'translation.fr'"), ("n", "holds int64, not text")):
        with pytest.raises(ValueError, match=message):
            resolve(config("hub:made", text_column=column))
