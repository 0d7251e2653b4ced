"""Pairs of source and target from files to rows: every format, the split by one side, the counts of what was cut and left out."""

import dataclasses
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_words import WORDS

from elf_platform.config import DataConfig, TokenizerConfig
from elf_platform.data.corpora import resolve
from elf_platform.data.inspect_data import inspect, show, verify
from elf_platform.data.manifest import PAIR_COUNTS, PAIR_READ, PAIR_SETTINGS, Manifest
from elf_platform.data.pairs import Pair, held_out_pairs, part_pairs
from elf_platform.data.prepare import PreparedData, prepare, summary
from elf_platform.data.reader import RowReader
from elf_platform.data.readers import ReadCounts

PAIRS = [(f"{WORDS[i % len(WORDS)]} {WORDS[i // len(WORDS)]} {i}", f"{WORDS[i // 3 % len(WORDS)]} is number {i // 3}") for i in range(120)]


class Here:
    """Runs the tasks in this process, in order or in reverse; dies before a task when told to."""

    def __init__(self, *, reverse: bool = False, die_at: int | None = None) -> None:
        self.reverse, self.die_at, self.ran = reverse, die_at, 0

    def __call__(self, jobs: Sequence[Any], task: Callable[[Any], dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for job in reversed(jobs) if self.reverse else jobs:
            if self.ran == self.die_at:
                raise KeyboardInterrupt
            self.ran += 1
            yield task(job)


def settings(path: Path, **changes: Any) -> DataConfig:
    fields: dict[str, Any] = {
        "paths": (str(path),), "tokenizer": TokenizerConfig(vocab_size=300), "length": 40, "packing": "document", "valid_fraction": 0.2,
        "source_column": "de", "text_column": "en", "source_length": 20, "shard_mb": 0.001,
    }
    return DataConfig(**fields | changes)


def prepared(folder: Path, config: DataConfig, each: Here | None = None) -> PreparedData:
    return prepare(config, folder / "storage", progress=False, each=each or Here())


def read_pairs(config: DataConfig, counts: ReadCounts | None = None) -> list[Pair]:
    """Strictly, unless there are counts of what is skipped."""
    counts, strict = counts or ReadCounts(), counts is None
    return [pair for part in resolve(config).parts for pair in part_pairs(part, strict=strict, counts=counts)]


def write_tsv(path: Path, pairs: Sequence[tuple[str, str]], header: str = "en\tde\tnote\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + "".join(f"{target}\t{source}\tCC BY #{i}\n" for i, (source, target) in enumerate(pairs)))
    return path


def all_rows(data: PreparedData) -> list[tuple[str, str]]:
    return [*held_out_pairs(data.folder, split="train"), *held_out_pairs(data.folder)]


def write_jsonl(path: Path) -> dict[str, str]:
    lines = [json.dumps({"de": source.split(" "), "en": [target, "another reference"]}) for source, target in PAIRS]
    path.with_suffix(".jsonl").write_text("\n".join(lines) + "\n")
    return {}


def write_nested(path: Path) -> dict[str, str]:
    table = pa.table({"translation": [{"de": source, "en": target} for source, target in PAIRS], "id": list(range(len(PAIRS)))})
    pq.write_table(table, path.with_suffix(".parquet"), row_group_size=50)
    return {"source_column": "translation.de", "text_column": "translation.en"}


def write_arrow(path: Path) -> dict[str, str]:
    table = pa.table({"n": list(range(len(PAIRS))), "en": [[target] for _, target in PAIRS], "de": [source for source, _ in PAIRS]})
    with pa.ipc.new_file(str(path.with_suffix(".arrow")), table.schema) as writer:
        writer.write_table(table, max_chunksize=30)
    return {}


def write_named(path: Path) -> dict[str, str]:
    write_tsv(path.with_suffix(".tsv"), PAIRS)
    return {}


def write_numbered(path: Path) -> dict[str, str]:
    plain = write_tsv(path.with_suffix(".plain"), PAIRS, header="")
    path.with_suffix(".txt.gz").write_bytes(gzip.compress(plain.read_bytes().replace(b"\n", b"\r\n")))
    plain.unlink()
    return {"source_column": "2", "text_column": "1"}


@pytest.mark.parametrize("write", [write_jsonl, write_nested, write_arrow, write_named, write_numbered])
def test_every_format_gives_the_same_pairs(tmp_path: Path, write: Callable[[Path], dict[str, str]]) -> None:
    (tmp_path / "files").mkdir()
    columns = write(tmp_path / "files" / "pairs")
    (path,) = (tmp_path / "files").iterdir()
    config = settings(path, **columns)
    assert read_pairs(config) == PAIRS
    data = prepared(tmp_path, config)
    assert sorted(all_rows(data)) == sorted(PAIRS) and verify(data.folder) == []


def test_rows_are_source_target_and_end_of_text_tokens(tmp_path: Path) -> None:
    data = prepared(tmp_path, settings(write_tsv(tmp_path / "a.tsv", PAIRS)))
    reader = RowReader(data.folder, "train")
    batch = reader.read(np.arange(len(reader)))
    kept = set(PAIRS)
    for ids, source, length in zip(batch.ids_BL.tolist(), batch.cond_length_B.tolist(), batch.length_B.tolist(), strict=True):
        text = (data.tokenizer.decode(ids[:source]), data.tokenizer.decode(ids[source : length - 1]))
        assert text in kept
        kept.remove(text)
        encoded = data.tokenizer.encode_batch(list(text))
        assert ids == encoded[0] + encoded[1] + [data.tokenizer.eos_id] * (40 - source - len(encoded[1]))
    assert "<unk>" not in summary(data) and "0 sources cut to 20 tokens" in summary(data)
    assert " -> " in inspect(data.folder)


def test_held_out_pairs_are_printed_as_lines_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = prepared(tmp_path, settings(write_tsv(tmp_path / "a.tsv", PAIRS)))
    assert show(held_out=data.folder) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["source"], line["text"]) for line in lines] == held_out_pairs(data.folder)
    assert {*map(tuple, held_out_pairs(data.folder, limit=2))} < {*PAIRS} and len(lines) == data.manifest.valid.documents


@pytest.mark.parametrize("side", ["target", "source"])
def test_pairs_with_the_same_side_are_held_out_together(tmp_path: Path, side: Any) -> None:
    pairs = [pair if side == "target" else pair[::-1] for pair in PAIRS]
    data = prepared(tmp_path, settings(write_tsv(tmp_path / "a.tsv", pairs), split_by=side))
    place = 1 if side == "target" else 0
    train, valid = ([pair[place] for pair in of] for of in (held_out_pairs(data.folder, split="train"), held_out_pairs(data.folder)))
    assert not {*train} & {*valid} and len(train) + len(valid) == len(pairs)
    expected = {
        text for text in {pair[place] for pair in pairs}
        if int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest()[:8], "big") / 2**64 < 0.2
    }
    assert {*valid} == expected and len(valid) > len(expected) > 3


def test_what_is_cut_left_out_or_there_twice_is_counted(tmp_path: Path) -> None:
    long = ("source word " * 30, "target word " * 30)
    extra = [long, PAIRS[0], ("", "a target alone"), ("a source alone", "  "), ("", "")]
    data = prepared(tmp_path, settings(write_tsv(tmp_path / "a.tsv", [*PAIRS, *extra])))
    manifest = data.manifest
    read = manifest.read
    assert (read.documents, read.duplicates, read.empty, read.empty_sources, read.empty_targets) == (122, 1, 3, 2, 2)
    ids = [len(ids) for ids in data.tokenizer.encode_batch([side.strip() for side in long])]
    both = [sum(getattr(of, name) for of in (manifest.train, manifest.valid)) for name in PAIR_COUNTS]
    assert both == [1, 1, ids[0] - 20, ids[1] - 19]
    assert manifest.train.closes and manifest.valid.closes
    assert manifest.train.truncated + manifest.valid.truncated == sum(ids) - 39
    assert "left out: 2 pairs with an empty source, 2 with an empty target" in summary(data)
    assert "1 sources cut to 20 tokens" in summary(data)


def test_any_order_of_work_and_a_kill_give_the_same_bytes(tmp_path: Path) -> None:
    for number in range(4):
        write_tsv(tmp_path / "files" / f"{number}.tsv", PAIRS[number::4])
    config = settings(tmp_path / "files")
    whole = prepared(tmp_path / "a", config)
    other = prepared(tmp_path / "b", config, Here(reverse=True))
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path / "c", config, Here(die_at=6))
    rest = Here()
    resumed = prepared(tmp_path / "c", config, rest)
    digests = [{p.name: p.read_bytes() for p in data.folder.glob("*.arrow")} for data in (whole, other, resumed)]
    assert digests[0] == digests[1] == digests[2] and len(digests[0]) > 4
    assert whole.manifest == other.manifest == resumed.manifest and rest.ran == 2


def test_ranges_of_one_file_give_every_pair_once(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "a.tsv", [(f"{s} {'x' * 200}", t) for s, t in PAIRS])
    data = prepared(tmp_path, settings(path, shard_mb=0.004))
    assert sum(of.documents for of in (data.manifest.train, data.manifest.valid)) == len(PAIRS)
    assert len({record.name[-8:] for record in data.manifest.shards}) > 3


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("a.tsv", "en\tfr\nx\ty\n", {}, r"a\.tsv:1 has no column 'de'; its first line names en, fr: use those, or numbers from 1"),
        ("a.tsv", "x\ty\n", {"source_column": "3", "text_column": "1"}, "has no column 3: its first line has 2 column"),
        ("a.tsv", "x\ty\n", {"source_column": "2"}, "give names, or numbers from 1"),
        ("a.txt", "A line of prose.\n", {"source_column": "2", "text_column": "1"}, "has no column 2: its first line has 1"),
        ("a.jsonl", '{"fr": "x", "en": "y"}\n', {}, r"no key 'de'; the keys of its first record are fr, en: set data\.source_column"),
        ("a.jsonl", '{"de": "x", "en": 3}\n', {}, r"key 'en' of .* holds a int, not text; keys that hold text: de: set data\.text_column"),
        ("a.jsonl", '{"de": "x", "en": [1, 2]}\n', {}, "key 'en' of .* holds a list of other things than strings, not text"),
        ("a.md", "x", {}, r"1 of no known type \(a\.md\)\); the known types are \.txt, \.tsv, \.csv"),
    ],
)
def test_wrong_columns_are_refused_with_what_is_there(
    tmp_path: Path, name: str, content: str, columns: dict[str, str], message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path, settings(tmp_path / name, **columns))


def test_missing_column_of_a_table_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"translation": [{"de": "x", "en": "y"}], "n": [1]}), tmp_path / "a.parquet")
    refusals = {"translation.fr": "no column 'translation.fr'; its columns are translation, n", "n": "holds int64, not text"}
    for column, message in refusals.items():
        with pytest.raises(ValueError, match=message):
            prepared(tmp_path, settings(tmp_path / "a.parquet", source_column=column, text_column="translation.en"))


def test_pairs_need_files() -> None:
    with pytest.raises(ValueError, match=r"data\.paths names no files, and the built-in corpus holds none; .* manythings\.org/anki"):
        prepared(Path("nowhere"), dataclasses.replace(settings(Path("x")), paths=()))


def test_broken_lines_are_counted_or_refused_and_never_shift_pairs(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "a.tsv", PAIRS)
    with path.open("a") as file:
        file.write("no tab here\n")
    assert prepared(tmp_path, settings(path)).manifest.read.skipped_lines == 1
    with pytest.raises(ValueError, match=r"a\.tsv:122 has 1 column\(s\), but should have 2"):
        read_pairs(settings(path))
    empty = write_tsv(tmp_path / "b.tsv", [PAIRS[0], ("", "y"), PAIRS[1]])
    empty.write_text(empty.read_text() + "\t\t\n")
    assert read_pairs(settings(empty)) == [PAIRS[0], ("", "y"), PAIRS[1], ("", "")]


@pytest.mark.parametrize(("form", "bad"), [("jsonl", 3), ("jsonl", None), ("jsonl", ["nested"]), ("parquet", None), ("arrow", None)])
def test_lists_with_other_things_than_strings_are_counted_or_refused(tmp_path: Path, form: str, bad: object) -> None:
    path = tmp_path / f"a.{form}"
    table = {"de": [["one", "more"], ["two", bad], ["three"]], "en": [["1"], ["2"], []]}
    if form == "jsonl":
        path.write_text("".join(json.dumps(dict(zip(table, row, strict=True))) + "\n" for row in zip(*table.values(), strict=True)))
    elif form == "parquet":
        pq.write_table(pa.table(table), path)
    else:
        with pa.ipc.new_file(str(path), pa.table(table).schema) as writer:
            writer.write_table(pa.table(table))
    counts = ReadCounts()
    assert read_pairs(settings(path), counts) == [("one more", "1"), ("three", "")] and counts.skipped_lines == 1
    where = r"a\.jsonl:2" if form == "jsonl" else rf"a\.{form}, row 2"
    with pytest.raises(ValueError, match=where + " holds a list of other things than strings under 'de'.*data.strict"):
        read_pairs(settings(path))


def test_one_target_for_all_cannot_be_split_by_target(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "a.tsv", [("one", "same"), ("two", "same")])
    with pytest.raises(ValueError, match=r"2 pairs, 1 different one .* named by data\.split_by, stay together"):
        prepared(tmp_path, settings(path))
    assert prepared(tmp_path, settings(path, split_by="source")).manifest.train.documents == 1


def test_manifests_of_plain_text_are_what_they_were_before_pairs(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"document {i}"}) + "\n" for i in range(9)))
    config = DataConfig(paths=(str(tmp_path / "a.jsonl"),), tokenizer=TokenizerConfig(vocab_size=270), length=16, valid_fraction=0.3)
    data = prepared(tmp_path, config)
    path = data.folder / "manifest.json"
    plain = json.loads(path.read_text())
    for place, names in (("data", PAIR_SETTINGS), ("read", PAIR_READ), ("train", PAIR_COUNTS), ("valid", PAIR_COUNTS)):
        for name in names:
            del plain[place][name]
    path.write_text(json.dumps(plain))
    assert Manifest.load(data.folder) == data.manifest
    assert prepare(config, tmp_path / "storage", progress=False, each=Here()).reused
    with pytest.raises(ValueError, match="was prepared from plain text, which has no sources"):
        held_out_pairs(data.folder)
