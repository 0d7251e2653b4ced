"""An even, repeatable sample of the corpus for training a tokenizer, read without reading the corpus."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from elf_platform.data.split import TRAIN, UInt8
from elf_platform.data.store import StoredPart

SPAN_BYTES = 1 << 14
"""Bytes of text taken at each place of the sample."""


def sample_text(
    parts: Sequence[StoredPart], indices: Sequence[NDArray[np.void]], fates: Sequence[UInt8], budget: int
) -> Iterator[str]:
    """Training documents, or runs of them, that add up to about ``budget`` bytes and are spread evenly over the corpus.

    The training documents are laid end to end and equal spans taken at equal distances; a document that is longer than what
    is left of its span is cut at a space. A corpus within the budget is yielded whole.
    """
    sizes = [np.where(fate == TRAIN, index["bytes"], 0) for index, fate in zip(indices, fates, strict=True)]
    total = sum(int(size.sum()) for size in sizes)
    spans = max(1, budget // SPAN_BYTES)
    whole = total <= spans * SPAN_BYTES
    starts = np.array([0]) if whole else ((np.arange(spans) + 0.5) * (total / spans) - SPAN_BYTES / 2).astype(np.int64)
    stops = np.array([total]) if whole else starts + SPAN_BYTES
    begin = 0
    for part, index, size in zip(parts, indices, sizes, strict=True):
        end_D = begin + np.cumsum(size)
        start_D = end_D - size
        begin = int(end_D[-1]) if len(end_D) else begin
        # A span can overlap several documents, and a document several spans.
        first_D = np.searchsorted(stops, start_D, side="right")
        last_D = np.searchsorted(starts, end_D, side="left")
        wanted = np.flatnonzero((size > 0) & (last_D > first_D))
        loaded, texts, offset = -1, list[str](), 0
        for document in wanted.tolist():
            number = int(index["batch"][document])
            if number != loaded:
                loaded, texts = number, part.batch(number)
                offset = int(np.searchsorted(index["batch"], number))
            text = texts[document - offset]
            data = text.encode()  # once, however many spans lie in a long document
            for span in range(int(first_D[document]), int(last_D[document])):
                yield _between(text, data, int(starts[span] - start_D[document]), int(stops[span] - start_D[document]))


def _between(text: str, data: bytes, start: int, stop: int) -> str:
    """The bytes ``start`` to ``stop`` of the text, which ``data`` holds in UTF-8, narrowed to whole words where they cut it."""
    if start <= 0 and stop >= len(data):
        return text
    piece = data[max(start, 0) : stop].decode("utf-8", errors="ignore")
    if start > 0:
        piece = piece[piece.find(" ") + 1 :]
    if stop < len(data) and " " in piece:
        piece = piece[: piece.rfind(" ")]
    return piece
