"""Checks that what workers hold in common, such as replicated weights, is the same to the last bit.

Each worker takes a 64-bit fingerprint of each tensor, the fingerprints are gathered (a few bytes a tensor), and those that differ from the
majority's are named. Sound hardware and collectives keep replicas equal, so a difference is a broken device, or a fault of ours.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from elf.data.order import derive_key

_CHUNK = 1 << 20  # elements: three int64 temporaries of 8 MB
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes per element
_NAMES_SHOWN = 5


class ReplicasDiffer(RuntimeError):
    """Workers no longer hold the same; the message is the paragraph of ``describe``."""


def fingerprints(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """A 64-bit checksum of each tensor's bits, type and shape, computed on its device.

    Each element's bits and its position are mixed to a word, and the words are summed modulo 2^64. The mixing is a bijection of the bits at
    each position, so a change of one element is always seen; any other change is missed with a probability of about 2^-64. Works on
    bits, so a NaN equals itself and 0 differs from -0; device and memory layout do not matter.
    """
    # All kernels are queued before the first result is waited for.
    sums = {name: _sum_of_words(tensor.detach()) for name, tensor in tensors.items()}
    return {
        name: (int(total) + derive_key("replica", str(tensors[name].dtype), *tensors[name].shape)) % (1 << 64)
        for name, total in sums.items()
    }


def _sum_of_words(tensor: Tensor) -> Tensor:
    """int64 scalar, modulo 2^64 as torch's integers wrap around."""
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    start = 0
    for piece in _pieces(tensor):
        words = piece.view(_WORDS[piece.element_size()]).to(torch.int64, copy=True)
        # The splitmix64 finaliser (Steele, Lea and Flood 2014; elf.data.order) keyed by the position. Python's constants are signed here.
        words += torch.arange(start, start + words.numel(), device=words.device).mul_(_signed(0x9E3779B97F4A7C15))
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            words ^= _shifted(words, shift)
            words *= _signed(factor)
        words ^= _shifted(words, 31)
        total += words.sum()
        start += words.numel()
    return total


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def _shifted(words: Tensor, by: int) -> Tensor:
    """Shifted to the right with zeros coming in; torch copies the sign, which would lose bits."""
    return (words >> by).bitwise_and_((1 << (64 - by)) - 1)


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """The elements in order, as flat contiguous pieces of at most ``_CHUNK``; whole tensors are never copied."""
    if tensor.is_contiguous():
        yield from tensor.view(-1).split(_CHUNK)
        return
    rows = _CHUNK * len(tensor) // tensor.numel()
    for part in tensor.split(max(1, rows)):
        if part.numel() <= _CHUNK:
            yield part.reshape(-1)
        else:
            yield from _pieces(part[0])


def differing(everyone: Sequence[Mapping[str, int]]) -> dict[str, list[int]]:
    """Name -> ranks whose fingerprint is not the majority's, from all ranks' fingerprints in rank order; empty when all agree.

    Where several values are equally frequent, that of the lowest rank counts as the right one. A missing tensor is a value too.
    """
    found = {}
    for name in dict.fromkeys(name for one in everyone for name in one):
        values = [one.get(name) for one in everyone]
        majority = Counter[Any](values).most_common(1)[0][0]  # the first met among the equally frequent
        ranks = [rank for rank, value in enumerate(values) if value != majority]
        if ranks:
            found[name] = ranks
    return found


def describe(differing: Mapping[str, Sequence[int]], step: int) -> str:
    """The paragraph for the user: which workers differ in what after ``step`` steps, what was expected, what to do."""
    by_rank: dict[int, list[str]] = {}
    for name, ranks in differing.items():
        for rank in ranks:
            by_rank.setdefault(rank, []).append(name)
    parts = []
    for rank, names in sorted(by_rank.items()):
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        parts.append(f"worker {rank} in {len(names)} tensor{'s' if len(names) > 1 else ''} ({', '.join(names[:_NAMES_SHOWN])}{more})")
    verb = "differs" if len(parts) == 1 else "differ"
    return (
        f"After {step} steps the workers no longer hold the same weights: {'; '.join(parts)} {verb} from the others. Replicas are expected "
        "to be equal to the last bit, as every worker applies the same sums. Most often a device or its memory is failing: the run's "
        "events.jsonl names the machines of the workers; test that one or leave it out. The same command goes on from the last "
        "checkpoint; one that was saved since the replicas were last found equal (health.replicas_every) may hold the fault: remove it "
        "to start from one before."
    )
