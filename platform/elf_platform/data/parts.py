"""Parts of a corpus, and a look into a file's head that makes them: are the columns there, do they hold text, where is it cut."""

import contextlib
import csv
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from elf_platform.data.columns import as_record, find_places, find_type, find_value, holds_text, is_text, kind_of
from elf_platform.data.files import READ_ERRORS, TABLES, Compression, FileFormat, FoundFile, open_stream, open_table
from elf_platform.data.text_ranges import lines

Format = FileFormat | Literal["builtin", "hub"]

_PROBE_BYTES = 1 << 20  # read from the head of a file to see whether it has its columns
_PROBE_RECORDS = 100


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be read of every file: the columns, and what their values may be."""

    columns: tuple[str, ...]
    settings: tuple[str, ...]
    """What names each column, for errors: data.text_column, --source_column."""
    lists: bool = False
    """Values may be lists of strings."""
    txt: Literal["txt", "lines", "tsv"] = "txt"
    """What a .txt holds: paragraphs, lines, or tab-separated columns."""


@dataclass(frozen=True, kw_only=True)
class CorpusPart:
    """What one task reads, about `data.shard_mb` megabytes: a file, a range of one, or several small files in order."""

    index: int = 0
    """Place in the corpus."""
    uri: str
    """Absolute path or filesystem URI; builtin:PACKAGE; hub:NAME:SPLIT."""
    format: Format
    text_column: str = "text"
    source_column: str = ""
    """Pairs: column of the source; the text column then holds the target."""
    lists: bool = False
    """Values may be lists of strings."""
    places: tuple[int, ...] = ()
    """tsv, csv: the columns' fields in a line, from 0."""
    header: int = 0
    """tsv, csv: how many names the first line of the file holds; 0 where it holds none."""
    start: int | None = None
    """First byte (txt, tsv, jsonl), row group (parquet), record batch (arrow) or row (hub); None for the whole."""
    stop: int | None = None
    """End of the range, exclusive; a document that begins before it is read to its end."""
    size: int = 0
    """Bytes as stored; 0 where not known."""
    compression: Compression = ""
    version: str = ""
    """builtin: version of the package whose documentation this is."""
    rest: tuple["CorpusPart", ...] = ()
    """Further small files of this part, read after this one."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read: the text, or source and target."""
        return (self.source_column, self.text_column) if self.source_column else (self.text_column,)


def part_for(uri: str, format: Format, asked: Asked, size: int, start: int | None = None, stop: int | None = None) -> CorpusPart:
    """A part of which the columns are read that were asked for."""
    source, text = asked.columns if len(asked.columns) == 2 else ("", *asked.columns)
    return CorpusPart(uri=uri, format=format, text_column=text, source_column=source, lists=asked.lists, start=start, stop=stop, size=size)


def whole_part(file: FoundFile, asked: Asked) -> CorpusPart:
    """A whole file, before anything is known of it."""
    format = asked.txt if file.format == "txt" else file.format
    return replace(part_for(file.uri, format, asked, file.size), compression=file.compression)


def inspect_file(file: FoundFile, asked: Asked, *, share: int, strict: bool) -> list[CorpusPart]:
    """The pieces of one file, of about ``share`` bytes each. A corrupt one is left whole to the reader, which counts it, unless strict.

    Raises ValueError when the file has not the columns that are asked for, or they hold no text."""
    whole = whole_part(file, asked)
    try:
        if whole.format in ("tsv", "csv"):
            whole = locate(whole, asked)
        elif whole.format in ("jsonl", "json"):
            _probe_json(whole, asked)
        spans = _spans(whole, asked, share)
    except READ_ERRORS as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        if strict:
            raise ValueError(
                f"{file.uri} cannot be read as {whole.format} ({error}); fetch or write the file again, remove it, or set data.strict "
                "to false to skip such files"
            ) from error
        return [whole]
    if len(spans) < 2:
        return [whole] if spans else []
    return [replace(whole, start=start, stop=stop, size=file.size // len(spans)) for start, stop in spans]


def ranges(count: int, size: int, share: int) -> list[tuple[int, int]]:
    """``count`` things of ``size`` bytes in all, cut into even ranges of about ``share`` bytes each."""
    pieces = max(1, min(count, round(size / share)))
    edges = [count * i // pieces for i in range(pieces + 1)]
    return list(itertools.pairwise(edges))


def check_columns(schema: pa.Schema, uri: str, asked: Asked) -> None:
    """Raises ValueError when a table has no such column of text, or two."""
    for setting, column in zip(asked.settings, asked.columns, strict=True):
        try:
            kind = find_type(schema, column)
        except KeyError:
            names = ", ".join(schema.names)
            raise ValueError(f"{uri} has no column {column!r}; its columns are {names}: set {setting} to one of them") from None
        except ValueError as error:
            raise ValueError(f"{uri} {error} ({setting})") from error
        if not is_text(kind, lists=asked.lists):
            text = [field.name for field in schema if is_text(field.type, lists=asked.lists)]
            raise ValueError(
                f"the column {column!r} of {uri} holds {kind}, not text; columns that hold text: {', '.join(text) or 'none'}: "
                f"set {setting} to one of them"
            )


def locate(part: CorpusPart, asked: Asked) -> CorpusPart:
    """A part of a tsv or csv with the places of its columns; refuses a file whose first line does not have them."""
    fields = first_fields(part)
    if fields is None:
        return part
    try:
        found = find_places(fields, asked.columns)
    except ValueError as error:
        raise ValueError(f"{part.uri}:1 {error} ({', '.join(asked.settings)})") from error
    return replace(part, places=found.places, header=found.header)


def column_names(part: CorpusPart) -> list[str]:
    """The names that a file gives its columns, as far as its head tells; none for an empty or a broken file."""
    with contextlib.suppress(*READ_ERRORS):
        if part.format in ("tsv", "csv"):
            return first_fields(part) or []
        if part.format in TABLES:
            return list(table_schema(part).names)
        for _, record in _records(part):
            return list(record)
    return []


def first_fields(part: CorpusPart) -> list[str] | None:
    """The fields of the first line of a tsv or csv that is not blank; None for an empty file."""
    decoded = (line.decode("utf-8", "replace") for _, line in lines(io.BytesIO(_head(part)), 0, None))
    if part.format == "csv":
        return next((fields for fields in csv.reader(line + "\n" for line in decoded) if not is_blank(fields)), None)
    return next((fields for line in decoded if not is_blank(fields := line.split("\t"))), None)


def is_blank(fields: Sequence[str]) -> bool:
    """Whether a line of a tsv or csv holds no row; separators alone are a row of empty fields."""
    return len(fields) <= 1 and not "".join(fields).strip(" ")


def table_schema(part: CorpusPart) -> pa.Schema:
    """Names and types of the columns of a parquet or arrow file."""
    with open_table(part.uri, part.compression) as source:
        if part.format == "parquet":
            return pq.ParquetFile(source).schema_arrow
        return (pa.ipc.open_file(source) if is_ipc_file(source) else pa.ipc.open_stream(source)).schema


def is_ipc_file(source: pa.NativeFile) -> bool:
    """Whether an Arrow file has the random-access layout (True) or is a stream; leaves the position at the start."""
    source.seek(0)
    magic = source.read(6)
    source.seek(0)
    return bool(magic == b"ARROW1")


def parse_json(raw: bytes) -> list[Any] | None:
    """The records of a .json that is one array, or one object over several lines; None for one that holds lines."""
    if raw.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"[", b"{"):
        return None
    try:
        value = json.loads(raw, object_pairs_hook=as_record)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else [value]


def _head(part: CorpusPart) -> bytes:
    with open_stream(part.uri, part.compression) as source:
        return source.read(_PROBE_BYTES)


def _spans(part: CorpusPart, asked: Asked, share: int) -> list[tuple[int, int]]:
    """Where a file is cut, none for a table without rows; one span, whatever it says, for a file that stays whole."""
    if part.format == "parquet":
        return _row_groups(part, asked, share)
    if part.format == "arrow":
        return _record_batches(part, asked, share)
    # A line break in quotes ends no row, so that a csv cannot be cut at lines; and a json may be one array.
    if part.compression or part.format in ("csv", "json") or part.size <= 1.5 * share:
        return [(0, part.size)]
    return ranges(part.size, part.size, share)


def _row_groups(part: CorpusPart, asked: Asked, share: int) -> list[tuple[int, int]]:
    """Ranges of row groups with about ``share`` bytes of text each, as the file's metadata says."""
    with open_table(part.uri, part.compression) as source:
        parquet = pq.ParquetFile(source)
        check_columns(parquet.schema_arrow, part.uri, asked)
        metadata = parquet.metadata
    if part.compression:
        return [(0, 0)] if metadata.num_rows else []
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    places = [i for i, path in enumerate(paths) if any(path == name or path.startswith(f"{name}.") for name in part.columns)]
    spans: list[tuple[int, int]] = []
    begin, held = 0, 0
    for group in range(metadata.num_row_groups):
        held += sum(metadata.row_group(group).column(place).total_uncompressed_size for place in places)
        if held >= share or group == metadata.num_row_groups - 1:
            spans.append((begin, group + 1))
            begin, held = group + 1, 0
    return spans if metadata.num_rows else []


def _record_batches(part: CorpusPart, asked: Asked, share: int) -> list[tuple[int, int]]:
    """Ranges of record batches; a stream can only be read from its beginning and stays whole."""
    with open_table(part.uri, part.compression) as source:
        if is_ipc_file(source):
            reader = pa.ipc.open_file(source)
            check_columns(reader.schema, part.uri, asked)
            count = reader.num_record_batches
            return ranges(count, 0 if part.compression else part.size, share) if count else []
        check_columns(pa.ipc.open_stream(source).schema, part.uri, asked)
        return [(0, 0)]


def _probe_json(part: CorpusPart, asked: Asked) -> None:
    """Refuse a file in whose first records a column is never there, or never text; broken lines are the reader's business."""
    records = list(itertools.islice(_records(part), _PROBE_RECORDS))
    if not records:
        return
    where, first = f"{part.uri}:{records[0][0]}", records[0][1]
    for setting, column in zip(asked.settings, asked.columns, strict=True):
        found = [value for _, record in records for value in _values(record, column)]
        if not found:
            keys = ", ".join(first) or "none"
            raise ValueError(f"{where} has no key {column!r}; the keys of its first record are {keys}: set {setting} to one of them")
        if not any(holds_text(value, lists=asked.lists) for value in found):
            text = ", ".join(key for key, value in first.items() if isinstance(value, str))
            raise ValueError(
                f"the key {column!r} of {where} holds a {kind_of(found[0])}, not text; keys that hold text: {text or 'none'}: "
                f"set {setting} to one of them"
            )


def _records(part: CorpusPart) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line, or number in an array, and content of the records at the head of a file that are objects."""
    if part.format == "json":
        with open_stream(part.uri, part.compression) as source:
            whole = parse_json(source.read())
        if whole is not None:
            yield from ((number, record) for number, record in enumerate(whole, 1) if isinstance(record, dict))
            return
    for number, (_, line) in enumerate(lines(io.BytesIO(_head(part)), 0, None), 1):
        try:
            record = json.loads(line, object_pairs_hook=as_record)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield number, record


def _values(record: dict[str, Any], column: str) -> Iterator[Any]:
    """The column's value, when the record has one."""
    with contextlib.suppress(KeyError):
        yield find_value(record, column)
