"""Parts of a sample folder: the samples of one compute batch each, as Parquet, whole or not there, with a recorded hash.

A part's bytes follow from the samples and the run alone: no time, host or worker is in it. Its record lies beside it until the manifest
takes the hashes over; a part whose record is missing or does not match is made again.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from elf.files import committing, sha256_of, write_text

PARTS, RECORDS = "parts", "records"

COLUMNS = {
    "id": pa.int64(),
    "text": pa.string(),
    "tokens": pa.list_(pa.int32()),
    "source": pa.string(),
    "truncated": pa.bool_(),
    "seed": pa.int64(),
    "nfe": pa.int32(),
}
"""Columns of a part: sample i of the run, its text and generated ids without padding, the source it was made from (and whether that
was cut), the seed (with the id it fixes the noise), and network evaluations."""

METADATA = b"elf.samples"
"""Key of the Parquet metadata that holds the run's settings as JSON."""


def part_name(index: int) -> str:
    """The part's path within the folder."""
    return f"{PARTS}/part-{index:05d}.parquet"


def write_part(folder: Path, index: int, rows: Sequence[dict[str, Any]], *, run: dict[str, Any], device: str) -> dict[str, Any]:
    """Commit the samples of one compute batch, then their record; returns the record.

    device: name of what computed them, for the manifest."""
    schema = pa.schema(
        [pa.field(name, kind, nullable=False) for name, kind in COLUMNS.items()], metadata={METADATA: json.dumps(run, sort_keys=True)}
    )
    path = folder / part_name(index)
    with committing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), temporary, compression="zstd", version="2.6")
    record = {
        "file": part_name(index),
        "rows": len(rows),
        "sha256": sha256_of(path),
        "nfe": max((row["nfe"] for row in rows), default=0),
        "device": device,
    }
    write_text(_record(folder, index), json.dumps(record) + "\n")
    return record


def read_record(folder: Path, index: int, rows: int) -> dict[str, Any] | None:
    """The record of a part that is there, whole and of ``rows`` samples; None when it is to be made (again)."""
    try:
        record = json.loads(_record(folder, index).read_text(encoding="utf-8"))
        whole = record["rows"] == rows and record["sha256"] == sha256_of(folder / part_name(index))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(record) if whole else None


def read_part(path: Path) -> list[dict[str, Any]]:
    """The samples of a part, in the order of their ids."""
    rows: list[dict[str, Any]] = pq.read_table(path, columns=list(COLUMNS)).to_pylist()
    return rows


def _record(folder: Path, index: int) -> Path:
    return folder / RECORDS / f"{index:05d}.json"
