"""Which documents are kept, and for which split: decided on their hashes alone, so that no order of work can change it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEFT_OUT, TRAIN, VALID = 0, 1, 2
UInt8 = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """The fate of each document (``LEFT_OUT``, ``TRAIN`` or ``VALID``), one array for each part of the corpus."""

    fates: tuple[UInt8, ...]
    duplicates: int
    notes: tuple[str, ...] = ()


def check_fraction(valid_fraction: float) -> None:
    """Raises ValueError for a share outside (0, 1)."""
    if not 0 < valid_fraction < 1:
        raise ValueError(
            f"data.valid_fraction is {valid_fraction}, but must lie between 0 and 1, both excluded: training and validation each "
            "need documents of their own; 0.01 is usual"
        )


def plan_split(
    indices: Sequence[NDArray[np.void]], valid_fraction: float, sides: Sequence[NDArray[np.uint64]] | None = None
) -> SplitPlan:
    """Keep the first of equal documents in corpus order; hold out those whose hash is below ``valid_fraction`` of its range.

    ``indices`` are the parts' document indices (``store.INDEX``). A document's split depends on its text and the fraction
    only, so that it stays the same when the corpus grows. Where that would leave a split empty, the document with the smallest
    (or, for training, the largest) hash is moved, and a note says so. ``sides``: other hashes that decide, of pairs those of one side;
    documents with the same one stay together.

    Raises ValueError for a fraction outside (0, 1), and when fewer than two different documents are there.
    """
    check_fraction(valid_fraction)
    high = np.concatenate([index["high"] for index in indices]) if indices else np.zeros(0, np.uint64)
    low = np.concatenate([index["low"] for index in indices]) if indices else np.zeros(0, np.uint64)
    order = np.lexsort((low, high))  # stable: of equal documents the first in corpus order comes first
    high_sorted, low_sorted = high[order], low[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (high_sorted[1:] != high_sorted[:-1]) | (low_sorted[1:] != low_sorted[:-1])
    decides = high if sides is None else np.concatenate([*sides, np.zeros(0, np.uint64)])
    kept = order[first]
    kept = kept[np.argsort(decides[kept], kind="stable")]
    side_K = decides[kept]
    if len(np.unique(side_K)) < 2:
        what = "document" if sides is None else "pair"
        way_out = (
            "give more text, or cut it into several documents (a .txt file is cut at blank lines, or at every line with "
            "data.unit line; a .jsonl file holds one document a line)"
            if sides is None
            else "pairs with the same side, named by data.split_by, stay together: give more pairs, or set it to the other side"
        )
        raise ValueError(
            f"the corpus holds {_count(len(order), what)}, {_count(len(np.unique(side_K)), 'different one')} after normalisation and "
            f"removal of duplicates, but training and validation need at least one each; {way_out}"
        )
    held_out = int(np.searchsorted(side_K.astype(np.float64) / 2.0**64, valid_fraction))
    notes: tuple[str, ...] = ()
    if held_out == 0 or held_out == len(kept):
        end_name, split = ("smallest", "validation") if held_out == 0 else ("largest", "training")
        end = side_K[0] if held_out == 0 else side_K[-1]
        moved = int((side_K == end).sum())
        held_out = moved if held_out == 0 else held_out - moved
        notes = (
            f"no document of {len(kept)} fell to {split} under data.valid_fraction {valid_fraction}, "
            f"so {'the one' if moved == 1 else 'those'} with the {end_name} hash {'was' if moved == 1 else 'were'} moved there",
        )
    fate = np.full(len(order), LEFT_OUT, dtype=np.uint8)
    fate[kept[:held_out]] = VALID
    fate[kept[held_out:]] = TRAIN
    borders = np.cumsum([len(index) for index in indices])[:-1]
    return SplitPlan(fates=tuple(np.split(fate, borders)), duplicates=len(order) - len(kept), notes=notes)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
