"""Shards come back as they were written, in any order of rows, and damage is told from data."""

from pathlib import Path

import numpy as np
import pytest

from elf.data.packing import Packed, flatten, pack
from elf.files import TEMPORARY, committing, sha256_of
from elf_platform.data.shards import ShardRecord, ShardWriter, hash_problem, open_shard, size_problem

LENGTH = 8


def packed(documents: int, start: int = 0) -> Packed:
    texts = [[2 + (start + i + j) % 90 for j in range(1 + (3 * i) % 11)] for i in range(documents)]
    return pack(*flatten(texts), length=LENGTH, mode="best_fit", eos_id=1, pad_id=0)


def write(folder: Path, *groups: Packed, name: str = "train-00000.arrow") -> ShardRecord:
    with ShardWriter(folder / name, split="train", length=LENGTH) as writer:
        for group in groups:
            writer.write(group)
    assert writer.record is not None
    return writer.record


def test_written_rows_come_back_without_a_copy(tmp_path: Path) -> None:
    groups = [packed(20), packed(7, start=5)]
    record = write(tmp_path, *groups)
    blocks = open_shard(tmp_path, record, LENGTH)
    assert record.rows == sum(len(group.length_R) for group in groups) and len(blocks) == 2
    for group, block in zip(groups, blocks, strict=True):
        np.testing.assert_array_equal(block.ids_RL, group.ids_RL)
        np.testing.assert_array_equal(block.segment_RL, group.segment_RL)
        np.testing.assert_array_equal(block.length_R, group.length_R)
        np.testing.assert_array_equal(block.cond_length_R, 0)
        assert not block.ids_RL.flags.writeable and not block.ids_RL.flags.owndata
        assert (block.ids_RL.dtype, block.segment_RL.dtype) == (np.int32, np.int16)


def test_record_tells_size_and_hash_of_the_file(tmp_path: Path) -> None:
    record = write(tmp_path, packed(20))
    path = tmp_path / record.name
    assert (record.bytes, record.sha256) == (path.stat().st_size, sha256_of(path))
    assert size_problem(tmp_path, record) == hash_problem(tmp_path, record) == ""


def test_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    one, two = (write(tmp_path, packed(20), name=name) for name in ("train-00000.arrow", "train-00001.arrow"))
    assert one.sha256 == two.sha256 != write(tmp_path, packed(20, start=1)).sha256


def test_no_rows_leave_no_file_and_remove_an_old_one(tmp_path: Path) -> None:
    write(tmp_path, packed(3))
    with ShardWriter(tmp_path / "train-00000.arrow", split="train", length=LENGTH) as writer:
        writer.write(packed(0))
    assert writer.record is None and list(tmp_path.iterdir()) == []


def test_failure_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power"), ShardWriter(tmp_path / "a.arrow", split="train", length=LENGTH) as writer:
        writer.write(packed(3))
        raise RuntimeError("power")
    assert list(tmp_path.iterdir()) == []


def test_commit_replaces_whole_files_only(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), committing(path) as temporary:
        temporary.write_text("ne")
        assert temporary.name.startswith(TEMPORARY) and temporary.parent == path.parent
        raise RuntimeError
    assert path.read_text() == "old"
    with committing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_truncated_shard_is_refused_with_both_sizes(tmp_path: Path) -> None:
    record = write(tmp_path, packed(20))
    path = tmp_path / record.name
    path.write_bytes(path.read_bytes()[:-100])
    sizes = f"expected {record.bytes} bytes, found {record.bytes - 100}"
    with pytest.raises(ValueError, match=rf"cut short: {sizes}; .*run jobs/prepare\.py again"):
        open_shard(tmp_path, record, LENGTH)


def test_missing_shard_is_refused(tmp_path: Path) -> None:
    record = write(tmp_path, packed(20))
    (tmp_path / record.name).unlink()
    with pytest.raises(ValueError, match=r"train-00000\.arrow is missing, but the manifest lists it"):
        open_shard(tmp_path, record, LENGTH)


def test_changed_byte_is_found_by_its_hash(tmp_path: Path) -> None:
    record = write(tmp_path, packed(20))
    content = bytearray((tmp_path / record.name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / record.name).write_bytes(content)
    assert size_problem(tmp_path, record) == ""
    assert f"expected SHA-256 {record.sha256}, found " in hash_problem(tmp_path, record)


def test_overwritten_footer_is_refused(tmp_path: Path) -> None:
    record = write(tmp_path, packed(20))
    (tmp_path / record.name).write_bytes(bytes(record.bytes))
    with pytest.raises(ValueError, match="is no readable Arrow file"):
        open_shard(tmp_path, record, LENGTH)


def test_rows_of_another_length_are_refused(tmp_path: Path) -> None:
    record = write(tmp_path, packed(20))
    with pytest.raises(ValueError, match=r"expected \d+ rows of 16 tokens, found \d+ rows with the columns .*ids"):
        open_shard(tmp_path, record, 16)
