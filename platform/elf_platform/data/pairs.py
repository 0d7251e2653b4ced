"""Pairs of source and target text: from parts of a corpus, as documents, and back from the rows that were held out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from elf.data.tokenizer import normalise
from elf_platform.data.aligned import as_text
from elf_platform.data.parts import CorpusPart
from elf_platform.data.reader import RowReader
from elf_platform.data.readers import ReadCounts, read_rows
from elf_platform.data.shards import Split

SEPARATOR = "\x1e"
"""Stands between source and target where a pair is one document; normalised text holds no control characters."""
Pair = tuple[str, str]


def held_out_pairs(folder: Path, *, limit: int = 0, split: Split = "valid") -> list[Pair]:
    """The first ``limit`` (0: all) pairs of a split of prepared data as text, in the order of the rows; cut as the rows are.

    Raises ValueError for data without pairs.
    """
    reader = RowReader(folder, split)
    if not reader.manifest.data.source_column:
        raise ValueError(f"{folder} was prepared from plain text, which has no sources; prepare pairs, with data.source_column")
    rows = min(limit or len(reader), len(reader))
    pairs = []
    for start in range(0, rows, 1024):
        batch = reader.read(np.arange(start, min(start + 1024, rows)))
        for ids, source, length in zip(batch.ids_BL.tolist(), batch.cond_length_B.tolist(), batch.length_B.tolist(), strict=True):
            pairs.append((reader.tokenizer.decode(ids[:source]), reader.tokenizer.decode(ids[source : length - 1])))
    return pairs


def part_pairs(part: CorpusPart, *, strict: bool, counts: ReadCounts) -> Iterator[Pair]:
    """Normalised pairs of one part of a corpus in file order, empty sides included; raises what ``read_rows`` does."""
    for source, target in read_rows(part, strict=strict, counts=counts):
        if isinstance(target, list):
            counts.further_targets += max(0, len(target) - 1)
            target = target[0] if target else ""
        yield _clean(as_text(source)), _clean(target or "")


def joined(pair: Pair) -> str:
    """The pair as one document."""
    return SEPARATOR.join(pair)


def parted(document: str) -> Pair:
    """The pair that ``joined`` put together."""
    source, _, target = document.partition(SEPARATOR)
    return source, target


def side_of(document: bytes, split_by: str) -> bytes:
    """The side of a joined pair (UTF-8) that decides its split."""
    source, _, target = document.partition(SEPARATOR.encode())
    return target if split_by == "target" else source


def _clean(text: str) -> str:
    return normalise(text).strip()
