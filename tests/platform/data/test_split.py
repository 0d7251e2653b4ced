"""Which documents are kept and where they go depends on their text alone."""

import hashlib
import io
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elf_platform.data.disk import check_disk, shard_bytes, text_bytes
from elf_platform.data.parts import CorpusPart
from elf_platform.data.progress import ProgressLine
from elf_platform.data.sample import SPAN_BYTES, sample_text
from elf_platform.data.split import LEFT_OUT, TRAIN, VALID, plan_split
from elf_platform.data.store import BATCH_BYTES, INDEX, StoredPart


def index_of(texts: list[str]) -> np.ndarray:
    digests = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
    halves = [(int.from_bytes(d[:8], "big"), int.from_bytes(d[8:], "big")) for d in digests]
    return np.array([(*half, len(text.encode()), 0) for half, text in zip(halves, texts, strict=True)], dtype=INDEX)


@given(st.lists(st.lists(st.integers(0, 30).map(str), max_size=12), min_size=1, max_size=5), st.floats(0.02, 0.98))
def test_plan_matches_a_plain_loop(parts: list[list[str]], fraction: float) -> None:
    different = list(dict.fromkeys(text for part in parts for text in part))
    if len(different) < 2:
        return
    plan = plan_split([index_of(part) for part in parts], fraction)
    seen: set[str] = set()
    share = {
        text: int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest()[:8], "big") / 2**64 for text in different
    }
    expected_valid = {text for text in different if share[text] < fraction}
    if not expected_valid:
        expected_valid = {min(different, key=share.__getitem__)}
    elif len(expected_valid) == len(different):
        expected_valid.remove(max(different, key=share.__getitem__))
    for part, fates in zip(parts, plan.fates, strict=True):
        for text, fate in zip(part, fates.tolist(), strict=True):
            assert fate == (LEFT_OUT if text in seen else VALID if text in expected_valid else TRAIN)
            seen.add(text)
    assert plan.duplicates == sum(map(len, parts)) - len(different)


def test_equal_halves_of_a_hash_are_not_equal_documents() -> None:
    index = np.array([(1, 1, 5, 0), (1, 2, 5, 0), (2, 1, 5, 0), (1, 1, 5, 0)], dtype=INDEX)
    assert plan_split([index], 0.5).duplicates == 1


def test_share_of_validation_is_what_was_asked_for() -> None:
    plan = plan_split([index_of([str(i) for i in range(20_000)])], 0.05)
    assert (plan.fates[0] == VALID).mean() == pytest.approx(0.05, abs=0.006)  # four standard deviations
    assert plan.notes == ()


def test_few_documents_still_fill_both_splits_and_say_so() -> None:
    small = plan_split([index_of(["a", "b", "c"])], 1e-9)
    assert [(small.fates[0] == fate).sum() for fate in (TRAIN, VALID)] == [2, 1]
    assert "no document of 3 fell to validation" in small.notes[0]
    large = plan_split([index_of(["a", "b", "c"])], 1 - 1e-9)
    assert [(large.fates[0] == fate).sum() for fate in (TRAIN, VALID)] == [1, 2]


def test_one_document_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="holds 3 documents, 1 different one after normalisation and removal of duplicates"):
        plan_split([index_of(["a", "a"]), index_of(["a"])], 0.1)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2.0])
def test_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"data\.valid_fraction is .*, but must lie between 0 and 1"):
        plan_split([index_of(["a", "b"])], fraction)


def test_stored_documents_come_back_in_order(tmp_path: Path) -> None:
    texts = ["short", "Grüße, 世界\n" * 30_000, "another", "x" * BATCH_BYTES, "last"]
    part = StoredPart(tmp_path, 3)
    index = part.write(texts)
    assert [text for batch in part.batches() for text in batch] == texts
    assert index["bytes"].tolist() == [len(text.encode()) for text in texts]
    np.testing.assert_array_equal(part.load_index(), index)
    assert len(set(index["batch"].tolist())) > 1
    for text, number in zip(texts, index["batch"].tolist(), strict=True):
        assert text in part.batch(number)
    expected = index_of(texts)
    np.testing.assert_array_equal(index[["high", "low"]], expected[["high", "low"]])


def test_part_without_documents_is_stored(tmp_path: Path) -> None:
    part = StoredPart(tmp_path, 0)
    assert len(part.write([])) == 0 and list(part.batches()) == []


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 5))
def test_sample_of_everything_is_everything(parts: int, documents: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        texts = [[f"{seed} {p} {d} word" for d in range(documents)] for p in range(parts)]
        stored = [StoredPart(Path(folder), p) for p in range(parts)]
        indices = [part.write(of) for part, of in zip(stored, texts, strict=True)]
        fates = [np.array([TRAIN if d % 3 else VALID for d in range(documents)], dtype=np.uint8)] * parts
        expected = [text for of in texts for d, text in enumerate(of) if d % 3]
        assert list(sample_text(stored, indices, fates, 10**9)) == expected


def test_sample_is_even_and_keeps_to_its_budget(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [[" ".join(f"p{p}d{d}w{w}" for w in range(rng.integers(1, 2000))) for d in range(150)] for p in range(4)]
    stored = [StoredPart(tmp_path, p) for p in range(4)]
    indices = [part.write(of) for part, of in zip(stored, texts, strict=True)]
    fates = [np.full(150, TRAIN, dtype=np.uint8)] * 4
    budget = 20 * SPAN_BYTES
    sample = list(sample_text(stored, indices, fates, budget))
    words = [word for piece in sample for word in piece.split()]
    everything = {word for of in texts for text in of for word in text.split()}
    assert 0.9 * budget < sum(len(piece.encode()) for piece in sample) <= budget
    assert set(words) <= everything and len(set(words)) == len(words), "only whole words, none twice"
    share = [sum(word.startswith(f"p{p}d") for word in words) / len(words) for p in range(4)]
    size = [sum(map(len, of)) for of in texts]
    np.testing.assert_allclose(share, np.array(size) / sum(size), atol=0.06)
    assert sample == list(sample_text(stored, indices, fates, budget))


def test_sample_of_one_long_document(tmp_path: Path) -> None:
    part = StoredPart(tmp_path, 0)
    index = part.write(["word " * 200_000])
    sample = list(sample_text([part], [index], [np.array([TRAIN], dtype=np.uint8)], 4 * SPAN_BYTES))
    assert len(sample) == 4 and all(0.99 * SPAN_BYTES < len(piece) <= SPAN_BYTES for piece in sample)


def test_disk_too_small_is_refused_with_the_sum(tmp_path: Path) -> None:
    check_disk(tmp_path, free=3_000, text=1_000, shards=2_000)
    asked = r"has 3 MB free, but the preparation needs about 3\.0 GB: 1\.0 GB for .* and 2\.0 GB for shards"
    with pytest.raises(ValueError, match=asked):
        check_disk(tmp_path, free=3_000_000, text=1_000_000_000, shards=2_000_000_000)


def test_estimate_of_text_counts_every_file_of_a_part_unpacked() -> None:
    rest = (
        CorpusPart(index=0, uri="b", format="txt", size=100, compression="gzip"),
        CorpusPart(index=0, uri="c", format="txt", size=7),
    )
    assert text_bytes(CorpusPart(index=0, uri="a", format="txt", size=1000, rest=rest)) == 1000 + 350 + 7


def test_estimate_of_shards_counts_padding_in_document_mode() -> None:
    size_D = np.full(100, 30)
    assert shard_bytes(size_D, 1024, "document") == 100 * (1024 * 6 + 8)
    assert shard_bytes(size_D, 1024, "concat") == 2 * (1024 * 6 + 8)


def test_progress_without_a_terminal_is_plain_lines() -> None:
    out = io.StringIO()
    with ProgressLine("reading", 4.0, out=out) as line:
        line.advance(3.0)
        line.advance(1.0)
    assert re.fullmatch(r"reading: 4\.0 of 4\.0 MB, [\d.]+ MB/s, done in 0\.\d s\n", out.getvalue())
    with ProgressLine("reading", 4.0, out=out, on=False) as line:
        line.advance(4.0)
    assert out.getvalue().count("\n") == 1


def test_progress_of_work_that_tells_its_own_length() -> None:
    out = io.StringIO()
    with ProgressLine("sampling", 1, unit="steps", digits=0, out=out) as line:
        for done in (1, 2, 4):
            line.reach(done, 4)
    assert out.getvalue().startswith("sampling: 4 of 4 steps, ")
