"""The reader gives the rows that were packed, by number, and refuses folders that are not what they say."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from elf.data.packing import Packed, flatten, pack
from elf.data.tokenizer import Tokenizer, train_tokenizer
from elf_platform.config import DataConfig
from elf_platform.data.inspect_data import inspect, verify
from elf_platform.data.manifest import CorpusCounts, Manifest, SplitCounts
from elf_platform.data.reader import RowReader
from elf_platform.data.shards import ShardWriter, Split

LENGTH = 16


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(iter(["the wind and the rain, the sun and the sea"] * 5), "bpe", 280)


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    """Two shards of training rows, one of two record batches, and one shard of validation rows; shard 1 has none."""
    tokenizer.save(tmp_path)
    records = []
    for name, groups in {"train-00000": (9, 4), "train-00002": (6,), "valid-00000": (3,)}.items():
        split: Split = "train" if name.startswith("train") else "valid"
        with ShardWriter(tmp_path / f"{name}.arrow", split=split, length=LENGTH) as writer:
            for group, documents in enumerate(groups):
                writer.write(packed(tokenizer, documents, f"{name} {group}"))
        assert writer.record is not None
        records.append(writer.record)
    counts = {}
    for split in ("train", "valid"):
        groups_of = {"train": [(9, "train-00000 0"), (4, "train-00000 1"), (6, "train-00002 0")], "valid": [(3, "valid-00000 0")]}
        all_packed = [packed(tokenizer, documents, name) for documents, name in groups_of[split]]
        counts[split] = SplitCounts(
            documents=sum(of.documents for of in all_packed),
            tokens=sum(of.tokens_in for of in all_packed),
            eos=sum(of.eos_added for of in all_packed),
            rows=sum(len(of.length_R) for of in all_packed),
            tokens_in_rows=sum(of.tokens_in_rows for of in all_packed),
        )
    Manifest(
        name="weather",
        corpus="0" * 64,
        tokenizer=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        data=DataConfig(length=LENGTH),
        read=CorpusCounts(documents=22),
        train=counts["train"],
        valid=counts["valid"],
        shards=tuple(records),
    ).save(tmp_path)
    return tmp_path


def packed(tokenizer: Tokenizer, documents: int, name: str) -> Packed:
    texts = [f"the wind and the rain {name} {i} " * (1 + i % 3) for i in range(documents)]
    ids = tokenizer.encode_batch(texts)
    return pack(*flatten(ids), length=LENGTH, mode="concat", eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)


def test_rows_come_in_shard_order_with_torch_types(folder: Path, tokenizer: Tokenizer) -> None:
    reader = RowReader(folder)
    groups = [packed(tokenizer, *of) for of in ((9, "train-00000 0"), (4, "train-00000 1"), (6, "train-00002 0"))]
    batch = reader.read(np.arange(len(reader)))
    assert len(reader) == sum(len(group.length_R) for group in groups)
    assert torch.equal(batch.ids_BL, torch.from_numpy(np.concatenate([group.ids_RL for group in groups])).long())
    assert torch.equal(batch.segment_BL, torch.from_numpy(np.concatenate([group.segment_RL for group in groups])).int())
    assert torch.equal(batch.length_B, torch.from_numpy(np.concatenate([group.length_R for group in groups])).long())
    assert (batch.cond_length_B == 0).all() and (batch.weight_B == 1).all()
    kinds = (batch.ids_BL.dtype, batch.length_B.dtype, batch.cond_length_B.dtype, batch.segment_BL.dtype, batch.weight_B.dtype)
    assert kinds == (torch.int64, torch.int64, torch.int64, torch.int32, torch.float32)
    assert (batch.ids_BL[~batch.valid_BL] == reader.pad_id).all() and reader.pad_id == tokenizer.pad_id


def test_any_order_and_repeats(folder: Path) -> None:
    reader = RowReader(folder)
    everything = reader.read(np.arange(len(reader)))
    rows = np.random.default_rng(0).integers(0, len(reader), 50)
    some = reader.read(rows)
    for name in ("ids_BL", "length_B", "segment_BL"):
        assert torch.equal(getattr(some, name), getattr(everything, name)[torch.from_numpy(rows)])
    assert reader.read(np.zeros(0, dtype=np.int64)).ids_BL.shape == (0, LENGTH)


def test_splits_are_apart(folder: Path) -> None:
    valid = RowReader(folder, "valid")
    text = valid.tokenizer.decode(valid.read(np.arange(len(valid))).ids_BL[0].tolist())
    assert len(valid) < len(RowReader(folder)) and text.startswith("the wind and the rain")


def test_row_outside_the_split_is_our_own_mistake(folder: Path) -> None:
    reader = RowReader(folder)
    for row in (-1, len(reader)):
        with pytest.raises(AssertionError, match="outside the split"):
            reader.read(np.array([row]))


def test_batch_may_be_written_to(folder: Path) -> None:
    reader = RowReader(folder)
    before = reader.read(np.array([0])).ids_BL.clone()
    reader.read(np.array([0])).ids_BL.zero_()
    assert torch.equal(reader.read(np.array([0])).ids_BL, before)


def test_truncated_shard_is_refused_when_the_folder_is_opened(folder: Path) -> None:
    path = folder / "train-00002.arrow"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(
        ValueError, match=r"train-00002\.arrow was cut short: expected \d+ bytes, found \d+; .* run jobs/prepare\.py"
    ):
        RowReader(folder)
    assert len(RowReader(folder, "valid"))


def test_other_tokenizer_is_refused(folder: Path) -> None:
    train_tokenizer(iter(["something else entirely"] * 5), "bpe", 270).save(folder)
    with pytest.raises(ValueError, match="is not the tokenizer the data was prepared with: expected fingerprint"):
        _ = RowReader(folder).tokenizer
    assert "has the fingerprint" in verify(folder)[0]


def test_verify_names_every_damaged_file(folder: Path) -> None:
    assert verify(folder) == []
    content = bytearray((folder / "train-00000.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "train-00000.arrow").write_bytes(content)
    (folder / "valid-00000.arrow").unlink()
    first, second = verify(folder)
    assert "train-00000.arrow was changed after it was prepared: expected SHA-256" in first
    assert "valid-00000.arrow is missing" in second
    (folder / "manifest.json").unlink()
    assert "manifest.json is missing" in verify(folder)[0]


def test_inspect_shows_counts_lengths_and_text(folder: Path) -> None:
    manifest = Manifest.load(folder)
    shown = inspect(folder)
    assert manifest.content_hash in shown and f"{manifest.train.tokens:,}" in shown
    assert "the wind and the rain" in shown and "█" in shown and "concat" in shown


def test_reading_is_fast_enough_for_training(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """512 rows of 1024 tokens in less than 20 ms: 1 % of a step of 2 s."""
    rows = 2048
    tokens_N = np.random.default_rng(0).integers(4, 280, rows * 1024 - 1, dtype=np.int32)
    group = pack(tokens_N, np.array([len(tokens_N)]), length=1024, mode="concat", eos_id=1, pad_id=0)
    records, counts = [], []
    splits: tuple[Split, ...] = ("train", "valid")
    for split in splits:
        with ShardWriter(tmp_path / f"{split}-00000.arrow", split=split, length=1024) as writer:
            writer.write(group)
        assert writer.record is not None
        records.append(writer.record)
        counts.append(SplitCounts(documents=1, tokens=len(tokens_N), eos=1, rows=rows, tokens_in_rows=rows * 1024))
    manifest = Manifest(
        name="noise",
        corpus="",
        tokenizer=tokenizer.fingerprint,
        vocab_size=280,
        data=DataConfig(),
        read=CorpusCounts(),
        train=counts[0],
        valid=counts[1],
        shards=tuple(records),
    )
    dataclasses.replace(manifest).save(tmp_path)
    reader = RowReader(tmp_path)
    chosen = np.random.default_rng(1).permutation(rows)[:512]
    times = []
    for _ in range(8):
        began = time.perf_counter()
        reader.read(chosen)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.02
