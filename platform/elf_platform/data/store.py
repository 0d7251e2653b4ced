"""Normalised documents between the passes of a preparation: one Arrow file of text and one index for each part of the corpus.

The index (hash, size in bytes and record batch of each document) is all that the driver needs to find duplicates, to split and
to draw a sample, so it never reads the text as a whole.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from elf.files import committing

BATCH_BYTES = 1 << 17
"""Bytes of text per record batch: what a random read costs, and what is tokenised at a time (1 << 20 was 4 % slower)."""
INDEX = np.dtype([("high", np.uint64), ("low", np.uint64), ("bytes", np.int64), ("batch", np.int32)])
_SCHEMA = pa.schema([pa.field("text", pa.large_string(), nullable=False)])


@dataclass(frozen=True)
class StoredPart:
    """The documents of part ``index`` under ``folder``."""

    folder: Path
    index: int

    @property
    def text_path(self) -> Path:
        return self.folder / f"text-{self.index:05d}.arrow"

    @property
    def index_path(self) -> Path:
        return self.folder / f"documents-{self.index:05d}.npy"

    @property
    def sides_path(self) -> Path:
        """Of pairs: the hash of the side that decides each one's split."""
        return self.folder / f"sides-{self.index:05d}.npy"

    def write(self, documents: Iterable[str], side: Callable[[bytes], bytes] | None = None) -> NDArray[np.void]:
        """Store the documents and their index, atomically; returns the index. ``side``: the part of a document that decides its split."""
        entries: list[tuple[int, int, int, int]] = []
        sides: list[int] = []
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with committing(self.text_path) as temporary, pa.ipc.new_file(str(temporary), _SCHEMA, options=options) as writer:
            for number, batch in enumerate(_batches(documents)):
                writer.write_batch(pa.record_batch([pa.array(batch, pa.large_string())], schema=_SCHEMA))
                entries += [(*_hash(text), len(text), number) for text in batch]
                if side is not None:
                    sides += [_hash(side(text))[0] for text in batch]
        index = np.array(entries, dtype=INDEX)
        if side is not None:
            _save(self.sides_path, np.array(sides, dtype=np.uint64))
        _save(self.index_path, index)
        return index

    def load_index(self) -> NDArray[np.void]:
        """One record for each document: the two halves of its hash, its size in bytes and its record batch."""
        return np.load(self.index_path, allow_pickle=False)

    def load_sides(self) -> NDArray[np.uint64]:
        """Of pairs: what decides the split of each."""
        return np.load(self.sides_path, allow_pickle=False)

    def batches(self) -> Iterator[list[str]]:
        """The documents, about ``BATCH_BYTES`` at a time."""
        with pa.OSFile(str(self.text_path)) as file:
            reader = pa.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number).column("text").to_pylist()

    def batch(self, number: int) -> list[str]:
        """The documents of one record batch."""
        with pa.OSFile(str(self.text_path)) as file:
            return pa.ipc.open_file(file).get_batch(number).column("text").to_pylist()


def _save(path: Path, values: NDArray[Any]) -> None:
    with committing(path) as temporary, temporary.open("wb") as file:
        np.save(file, values)


def _batches(documents: Iterable[str]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for document in documents:
        text = document.encode()
        batch.append(text)
        size += len(text)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _hash(text: bytes) -> tuple[int, int]:
    digest = hashlib.blake2b(text, digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
