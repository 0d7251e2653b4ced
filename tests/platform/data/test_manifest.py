"""A manifest survives the disk, closes its account, and refuses everything that is not what was prepared."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from elf_platform.config import DataConfig, TokenizerConfig
from elf_platform.data.manifest import CorpusCounts, Manifest, SplitCounts, identity
from elf_platform.data.shards import ShardRecord


def example(**changes: Any) -> Manifest:
    shards = (
        ShardRecord(name="train-00000.arrow", split="train", rows=3, bytes=900, sha256="a" * 64),
        ShardRecord(name="valid-00000.arrow", split="valid", rows=1, bytes=500, sha256="b" * 64),
    )
    fields: dict[str, Any] = {
        "name": "poems",
        "corpus": "c" * 64,
        "tokenizer": "d" * 64,
        "vocab_size": 300,
        "data": DataConfig(length=8, valid_fraction=0.1, paths=("poems.txt",)),
        "read": CorpusCounts(documents=6, duplicates=1, bytes=80),
        "train": SplitCounts(documents=4, tokens=18, eos=4, rows=3, tokens_in_rows=22, cut=1),
        "valid": SplitCounts(documents=1, tokens=4, eos=1, rows=1, tokens_in_rows=5),
        "notes": ("a note",),
        "shards": shards,
        "code_version": "0.1.0",
    }
    return Manifest(**fields | changes)


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_saved_manifest_loads_equal(tmp_path: Path) -> None:
    saved = example().save(tmp_path)
    assert Manifest.load(tmp_path) == saved
    assert saved.content_hash == example().computed_hash() and len(saved.content_hash) == 64


def test_content_hash_follows_the_data_and_not_its_place(tmp_path: Path) -> None:
    reference = example().computed_hash()
    moved = dataclasses.replace(example().data, paths=("/elsewhere/poems.txt",), strict=True)
    assert example(data=moved, code_version="0.2.0").computed_hash() == reference
    shard = dataclasses.replace(example().shards[0], sha256="e" * 64)
    for changes in ({"shards": (shard, example().shards[1])}, {"tokenizer": "f" * 64}, {"data": DataConfig(length=16)}):
        assert example(**changes).computed_hash() != reference


def test_identity_names_a_given_tokenizer_by_nothing_but_its_fingerprint() -> None:
    here, there = (DataConfig(tokenizer=TokenizerConfig(source=source)) for source in ("a/tokenizer.json", "hub:b"))
    assert identity(here) == identity(there) != identity(DataConfig())


def test_account_that_does_not_close_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="does not close"):
        example(train=SplitCounts(tokens=18, eos=4, rows=3, tokens_in_rows=21)).save(tmp_path)
    with pytest.raises(AssertionError, match="rows and shards disagree"):
        example(train=SplitCounts(tokens=18, eos=4, rows=2, tokens_in_rows=22)).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_missing_manifest_says_whether_the_folder_exists(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"manifest\.json is missing: the preparation did not finish\); run jobs/prepare"):
        Manifest.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="the folder does not exist"):
        Manifest.load(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["", '{"format": 1, "na', "\x00\x01"])
def test_broken_manifest_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=r"holds no valid JSON .*; delete .*manifest\.json and run jobs/prepare\.py again"):
        Manifest.load(tmp_path)


def test_other_format_is_refused(tmp_path: Path) -> None:
    example().save(tmp_path)
    rewrite(tmp_path, format=99)
    with pytest.raises(ValueError, match="has format 99, but this code reads format 2"):
        Manifest.load(tmp_path)


def test_unknown_field_is_refused_by_name(tmp_path: Path) -> None:
    example().save(tmp_path)
    rewrite(tmp_path, vocabsize=3)
    with pytest.raises(ValueError, match="unknown setting vocabsize; did you mean vocab_size"):
        Manifest.load(tmp_path)


def test_edited_manifest_is_refused_by_its_hash(tmp_path: Path) -> None:
    saved = example().save(tmp_path)
    rewrite(tmp_path, vocab_size=301)
    with pytest.raises(ValueError, match=rf"was changed after it was written: .* but it states {saved.content_hash}"):
        Manifest.load(tmp_path)


def test_differences_name_every_field(tmp_path: Path) -> None:
    wanted = DataConfig(length=16, valid_fraction=0.1, packing="best_fit", paths=("other.txt",), strict=True)
    with pytest.raises(ValueError) as caught:
        example().require(tmp_path, data=wanted, corpus="0" * 64)
    message = str(caught.value)
    for part in ("data.length: 8 -> 16", 'data.packing: "concat" -> "best_fit"', 'corpus: "ccc', "Prepare the data with"):
        assert part in message
    assert "paths" not in message and "strict" not in message and "valid_fraction" not in message
    example().require(tmp_path, data=dataclasses.replace(example().data, paths=("other.txt",)), corpus="c" * 64)


def test_differences_name_the_shards_that_differ() -> None:
    other = example(shards=(example().shards[0], dataclasses.replace(example().shards[1], sha256="e" * 64)))
    assert example().differences(other) == ["shards: valid-00000.arrow differ"]
    assert example().differences(example(code_version="9")) == []
