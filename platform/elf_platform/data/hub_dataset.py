"""Data sets of the Hugging Face hub, through the optional `datasets` library."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from elf.data.hub import hub_offline, hub_reachable
from elf_platform.data.columns import find_column, top_level

PREFIX = "hub:"
_ADVICE = "download the data set as .parquet, .jsonl or .txt files where the hub can be reached, and pass them as data.paths"


@dataclass(frozen=True, kw_only=True)
class HubDataSet:
    """What is known of a data set before its text is read."""

    uri: str
    rows: int
    size: int
    """Bytes of all columns."""
    fingerprint: str
    """Changes with the data set's revision on the hub."""
    schema: pa.Schema
    """Names and types of the columns."""


def describe(uri: str) -> HubDataSet:
    """Fetch (or find in the cache) what hub:NAME, hub:NAME:SPLIT or hub:NAME:CONFIGURATION:SPLIT stands for.

    Raises ValueError, within seconds, when the library is missing or the hub cannot be reached.
    """
    data = _load(uri)
    checksums = sorted((data.info.download_checksums or {}).items())
    identity = repr([checksums, data.num_rows]) if checksums else f"{data._fingerprint} {data.num_rows}"
    return HubDataSet(uri=uri, rows=data.num_rows, size=data.data.nbytes, fingerprint=identity, schema=data.features.arrow_schema)


def read_rows(uri: str, columns: Sequence[str], start: int | None, stop: int | None) -> Iterator[tuple[Any, ...]]:
    """The columns' values of a range of rows."""
    data = _load(uri)
    data = data.select_columns(top_level(data.features.arrow_schema, columns)).with_format("arrow")
    last = data.num_rows if stop is None else stop
    for begin in range(start or 0, last, 1000):
        table = data[begin : min(begin + 1000, last)]
        yield from zip(*(find_column(table, column).to_pylist() for column in columns), strict=True)


def _load(uri: str) -> Any:
    name, *where = uri.removeprefix(PREFIX).split(":")
    if not name or len(where) > 2:
        raise ValueError(f"{uri!r} is not a data set; write hub:NAME, hub:NAME:SPLIT or hub:NAME:CONFIGURATION:SPLIT")
    try:
        import datasets
    except ImportError as error:
        raise ValueError(f"{uri} needs the package datasets, which is not installed; install it, or {_ADVICE}") from error
    reachable = hub_reachable()
    before = datasets.config.HF_HUB_OFFLINE  # the environment is read at import only
    datasets.config.HF_HUB_OFFLINE = not reachable  # online, the library would retry a dead network for minutes
    try:
        return datasets.load_dataset(name, where[0] if len(where) == 2 else None, split=where[-1] if where else "train")
    except Exception as error:  # network, permission, naming and format errors of several libraries
        if reachable or os.path.isdir(name):
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        else:
            why = ("HF_HUB_OFFLINE is set" if hub_offline() else "the hub does not answer") + ", and it is not in the local cache"
        raise ValueError(f"the data set {uri} could not be loaded: {why}; {_ADVICE}") from error
    finally:
        datasets.config.HF_HUB_OFFLINE = before
