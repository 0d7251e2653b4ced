"""Fingerprints see every bit and every place, and the odd one out is named."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from elf.data.order import derive_key, mix64
from elf_platform.train.replicas import ReplicasDiffer, describe, differing, fingerprints

BITS = {
    torch.float32: torch.int32,
    torch.bfloat16: torch.int16,
    torch.int64: torch.int64,
    torch.int8: torch.uint8,
    torch.float64: torch.int64,
}
MASK = (1 << 64) - 1


def fingerprint(tensor: Tensor) -> int:
    return fingerprints({"x": tensor})["x"]


def random(dtype: torch.dtype, size: int, seed: int = 0) -> Tensor:
    """Any bits, so also NaNs and infinities."""
    generator = torch.Generator().manual_seed(seed)
    width = torch.empty((), dtype=dtype).element_size()
    return torch.randint(0, 256, (size * width,), generator=generator, dtype=torch.uint8).view(dtype)


def by_hand(tensor: Tensor) -> int:
    """The checksum in Python's unbounded integers; bits of narrow types are extended by their sign, as torch does (bytes are not)."""
    total = derive_key("replica", str(tensor.dtype), *tensor.shape)
    for position, bits in enumerate(tensor.contiguous().view(-1).view(BITS[tensor.dtype]).tolist()):
        z = (bits + position * 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        total += z ^ (z >> 31)
    return total & MASK


@pytest.mark.parametrize("dtype", list(BITS))
def test_against_python_integers(dtype: torch.dtype) -> None:
    for size in (0, 1, 7, 1000):
        assert fingerprint(random(dtype, size)) == by_hand(random(dtype, size))


@given(st.sampled_from(list(BITS)), st.integers(1, 40), st.data())
def test_one_flipped_bit_is_seen(dtype: torch.dtype, size: int, data: st.DataObject) -> None:
    tensor = random(dtype, size)
    other = tensor.clone()
    width = tensor.element_size() * 8
    place, bit = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, width - 1))
    other.view(BITS[dtype])[place] ^= (1 << bit) - (1 << width if bit == width - 1 else 0)
    assert fingerprint(other) != fingerprint(tensor)
    other.view(BITS[dtype])[place] = tensor.view(BITS[dtype])[place]
    assert fingerprint(other) == fingerprint(tensor)


@given(st.sampled_from(list(BITS)), st.integers(2, 40), st.data())
def test_swapped_elements_are_seen(dtype: torch.dtype, size: int, data: st.DataObject) -> None:
    tensor = random(dtype, size)
    i, j = data.draw(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)))
    order = torch.arange(size)
    order[i], order[j] = j, i
    bits = tensor.view(BITS[dtype])
    assert (fingerprint(tensor[order]) == fingerprint(tensor)) == bool(bits[i] == bits[j])


def test_swapped_signs_are_seen_in_doubles() -> None:
    """Their bits differ by 2^63, which a sum of bits times odd numbers would lose."""
    assert fingerprint(torch.tensor([1.0, -1.0], dtype=torch.float64)) != fingerprint(torch.tensor([-1.0, 1.0], dtype=torch.float64))


def test_changes_that_cancel_in_a_linear_sum_are_seen() -> None:
    assert fingerprint(torch.tensor([5, 5, 5])) != fingerprint(torch.tensor([6, 3, 6]))


def test_it_is_the_bits_that_count() -> None:
    nan = torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32)
    assert fingerprint(nan) == fingerprint(nan.clone())
    assert fingerprint(nan) != fingerprint(torch.tensor([0x7FC00002], dtype=torch.int32).view(torch.float32))
    assert fingerprint(torch.zeros(1)) != fingerprint(-torch.zeros(1))
    assert fingerprint(torch.zeros(3)) != fingerprint(torch.zeros(4))
    assert fingerprint(torch.zeros(2, 3)) != fingerprint(torch.zeros(3, 2))
    assert fingerprint(torch.zeros(2)) != fingerprint(torch.zeros(2, dtype=torch.int32))
    assert fingerprint(torch.tensor(True)) != fingerprint(torch.tensor(False))
    assert fingerprint(torch.nn.Parameter(torch.ones(2))) == fingerprint(torch.ones(2))


@pytest.mark.parametrize("shape", [(3, 1 << 20), (1 << 20, 3), (2, 1500000), (5, 7), ((1 << 21) + 3,)])
def test_chunks_and_layout_do_not_matter(shape: tuple[int, ...]) -> None:
    """Larger than a chunk, as a transposed view and as every second element of another tensor, against one contiguous piece."""
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    transposed = tensor.t().contiguous().t()
    strided = torch.stack([tensor, tensor], dim=-1)[..., 0]
    assert not strided.is_contiguous()
    assert fingerprint(tensor) == fingerprint(transposed) == fingerprint(strided)
    changed = strided.clone()
    changed.view(-1)[-1] += 1
    assert fingerprint(changed) != fingerprint(tensor)


def test_a_chunk_border_is_no_border() -> None:
    tensor = random(torch.int64, (1 << 20) + 2, seed=3)
    bits = tensor.numpy().view("uint64")
    with np.errstate(over="ignore"):
        # elf.data.order.mix64 adds the constant itself: position - 1 steps of it come before.
        places = np.arange(len(bits), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) - np.uint64(0x9E3779B97F4A7C15)
        total = int(mix64(bits + places).sum(dtype=np.uint64)) + derive_key("replica", "torch.int64", len(bits))
    assert fingerprint(tensor) == total & MASK


def test_those_that_differ_from_the_majority_are_named() -> None:
    assert differing([{"a": 1, "b": 2}] * 4) == {}
    assert differing([]) == {}
    assert differing([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "b": 3}]) == {"b": [0]}
    assert differing([{"a": 1}, {"a": 2}]) == {"a": [1]}  # a tie: the lowest rank's
    assert differing([{"a": 5}, {"a": 2}, {"a": 1}, {"a": 1}, {"a": 2}]) == {"a": [0, 2, 3]}  # 2 and 1 tie: rank 1 holds 2
    assert differing([{"a": 1, "b": 1}, {"a": 1}, {"a": 1}]) == {"b": [0]}


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_the_majority_by_counting(values: list[int]) -> None:
    right = max(values, key=lambda value: (values.count(value), -values.index(value)))
    expected = [rank for rank, value in enumerate(values) if value != right]
    assert differing([{"x": value} for value in values]) == ({"x": expected} if expected else {})


def test_the_paragraph_names_workers_tensors_and_the_way_out() -> None:
    found = {f"weight/{i}": [2] for i in range(7)} | {"ema/a": [1, 2]}
    text = describe(found, 500)
    assert "After 500 steps" in text and "worker 1 in 1 tensor (ema/a); worker 2 in 8 tensors (weight/0, " in text and "and 3 more" in text
    assert "checkpoint" in text and "health.replicas_every" in text and "\n" not in text
    with pytest.raises(ReplicasDiffer, match=r"worker 1 in 1 tensor \(a\) differs from the others"):
        raise ReplicasDiffer(describe({"a": [1]}, 3))
