"""Shards: Arrow IPC files of packed rows, written atomically and read through a memory map.

Columns: ids (fixed-size list of int32 [L]), length, cond_length (int32), segment (fixed-size list of int16 or int32 [L]). The
files are not compressed, so that a column of a record batch is a numpy array that lies on the mapped file.

Shapes: R rows of a record batch, L row length.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from elf.data.packing import Packed, segment_dtype
from elf.files import committing, inside, sha256_of

Split = Literal["train", "valid"]
SPLITS: tuple[Split, ...] = ("train", "valid")


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """What the manifest knows of a shard."""

    name: str
    split: Split
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Block:
    """One record batch of a shard; the arrays are read-only views of the file."""

    ids_RL: NDArray[np.int32]
    length_R: NDArray[np.int32]
    cond_length_R: NDArray[np.int32]
    segment_RL: NDArray[np.signedinteger]


def shard_schema(length: int) -> pa.Schema:
    """Columns of a shard of rows of ``length`` tokens."""

    def row(kind: Any) -> pa.DataType:
        return pa.list_(pa.field("item", pa.from_numpy_dtype(kind), nullable=False), length)

    fields = {"ids": row(np.int32), "length": pa.int32(), "cond_length": pa.int32(), "segment": row(segment_dtype(length))}
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields.items()])


class ShardWriter:
    """Writes one shard, a record batch per ``write``; a shard without rows leaves no file.

    Use as a context manager: ``record`` is set when the block ends well.
    """

    def __init__(self, path: Path, *, split: Split, length: int) -> None:
        self.path, self.split = path, split
        self.rows = 0
        self.record: ShardRecord | None = None
        self._schema = shard_schema(length)
        self._stack = ExitStack()
        self._temporary: Path | None = None
        self._writer: pa.RecordBatchFileWriter | None = None

    def __enter__(self) -> "ShardWriter":
        return self

    def write(self, packed: Packed) -> None:
        rows = len(packed.length_R)
        if not rows:
            return
        if self._writer is None:
            self._temporary = self._stack.enter_context(committing(self.path))
            self._writer = pa.ipc.new_file(str(self._temporary), self._schema)
        ids, segment = (
            pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=self._schema.field(name).type)
            for name, values in (("ids", packed.ids_RL), ("segment", packed.segment_RL))
        )
        columns = [ids, pa.array(packed.length_R), pa.array(packed.cond_length_R), segment]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        self.rows += rows

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._writer is not None and self._temporary is not None:
            self._writer.close()
            if kind is None:
                size, digest = self._temporary.stat().st_size, sha256_of(self._temporary)
                self.record = ShardRecord(name=self.path.name, split=self.split, rows=self.rows, bytes=size, sha256=digest)
        elif kind is None:
            self.path.unlink(missing_ok=True)  # left by an earlier preparation that found rows here
        self._stack.__exit__(kind, error, trace)


def size_problem(folder: Path, record: ShardRecord) -> str:
    """Why the shard's file cannot be the one that was prepared, judged by its size; empty when it can."""
    path = inside(folder, record.name)
    if not path.is_file():
        return f"{path} is missing, but the manifest lists it with {record.rows} rows in {record.bytes} bytes"
    found = path.stat().st_size
    if found != record.bytes:
        what = "cut short" if found < record.bytes else "overwritten"
        return f"{path} was {what}: expected {record.bytes} bytes, found {found}"
    return ""


def hash_problem(folder: Path, record: ShardRecord) -> str:
    """As ``size_problem``, but reads the whole file and compares its SHA-256."""
    problem = size_problem(folder, record)
    if problem:
        return problem
    found = sha256_of(folder / record.name)
    if found != record.sha256:
        return f"{folder / record.name} was changed after it was prepared: expected SHA-256 {record.sha256}, found {found}"
    return ""


def damage(problem: str) -> ValueError:
    """The error for a shard that is not what was prepared, with the way out."""
    return ValueError(
        f"{problem}; delete the file if it exists and run jobs/prepare.py again with the same settings: shards that are intact "
        "are kept, and only this one is made anew"
    )


def open_shard(folder: Path, record: ShardRecord, length: int) -> list[Block]:
    """The record batches of a shard as arrays on a memory map; nothing is read but the footer.

    Raises ValueError when the file is missing, has another size, or is not the Arrow file that the record describes.
    """
    problem = size_problem(folder, record)
    if problem:
        raise damage(problem)
    path = inside(folder, record.name)
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
    except pa.ArrowException as error:
        raise damage(f"{path} is no readable Arrow file ({error})") from error
    if not reader.schema.equals(shard_schema(length)) or sum(batch.num_rows for batch in batches) != record.rows:
        rows = sum(batch.num_rows for batch in batches)
        raise damage(
            f"{path} does not hold what the manifest says: expected {record.rows} rows of {length} tokens, "
            f"found {rows} rows with the columns {', '.join(str(field) for field in reader.schema)}"
        )
    return [_block(batch, length) for batch in batches]


def _block(batch: pa.RecordBatch, length: int) -> Block:
    def column(name: str) -> NDArray[Any]:
        values = batch.column(name)
        if pa.types.is_fixed_size_list(values.type):
            return values.flatten().to_numpy(zero_copy_only=True).reshape(-1, length)
        return values.to_numpy(zero_copy_only=True)

    return Block(column("ids"), column("length"), column("cond_length"), column("segment"))
