"""From a part of the corpus to its documents, as a stream: no file, and no document above a limit, is held in memory whole."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from elf.data.tokenizer import well_formed
from elf_platform.data import builtin, hub_dataset
from elf_platform.data.columns import find_column, find_value, holds_text, kind_of, top_level
from elf_platform.data.corpora import CorpusPart, is_ipc_file
from elf_platform.data.files import open_file, open_stream
from elf_platform.data.text_ranges import UnreadableFile, line_number, lines, paragraphs, pieces_of, text_of

MAX_DOCUMENT_BYTES = 8 << 20
"""Longer documents are yielded in consecutive pieces of at most this many bytes of UTF-8."""

Row = tuple[Any, ...]
T = TypeVar("T")

_BATCH_ROWS = 1000
_BOM_BYTES = 3  # a byte order mark is taken off the first line, which then begins behind it
_MESSAGES = 5
_UNITS = {"parquet": "row group", "arrow": "record batch", "hub": "row"}
_CORRUPTION = re.compile(r"inflate|zlib|zstd|decompress|truncated|corrupt|thrift|snappy|unexpected end|parquet|magic|ipc", re.I)


@dataclass(kw_only=True)
class ReadCounts:
    """What reading met; the reader adds to it while the documents are drawn."""

    documents: int = 0
    """Documents read; one that was cut into pieces counts once."""
    bytes: int = 0
    """UTF-8 bytes of the text yielded."""
    skipped_files: int = 0
    """Files, or the rest of one, that could not be read: binary, wrongly encoded, corrupt. One cut into parts counts in each."""
    skipped_lines: int = 0
    """Lines or documents that could not be read, inside a file that could."""
    empty_documents: int = 0
    split_documents: int = 0
    """Documents above the size limit, yielded in consecutive pieces."""
    messages: list[str] = field(default_factory=list)
    """A few examples of what was skipped, "file:line why"."""

    def note(self, message: str) -> None:
        if len(self.messages) < _MESSAGES:
            self.messages.append(message)


def read_documents(part: CorpusPart, *, strict: bool, counts: ReadCounts, max_bytes: int = MAX_DOCUMENT_BYTES) -> Iterator[str]:
    """Documents of one part in file order, none empty; what cannot be read is skipped and counted.

    Raises ValueError, naming file and line, when strict and something cannot be read; FileNotFoundError and OSError when a file is
    gone or the network fails, strict or not, because skipping then would silently change the corpus.
    """
    yield from _each_file(part, lambda piece: _documents(piece, strict, counts, max_bytes), strict, counts)


def read_rows(part: CorpusPart, *, strict: bool, counts: ReadCounts) -> Iterator[Row]:
    """The values of ``part.columns``, row by row in file order, as they stand in the file; raises what ``read_documents`` does."""
    yield from _each_file(part, lambda piece: _rows(piece, strict, counts), strict, counts)


def _each_file(part: CorpusPart, read: Callable[[CorpusPart], Iterator[T]], strict: bool, counts: ReadCounts) -> Iterator[T]:
    for piece in (part, *part.rest):
        try:
            yield from read(piece)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{piece.uri} was there when the corpus was listed, but cannot be found by the process that reads it; put the files "
                "where every node sees them under the same path (a shared disk, s3:// or gs://)"
            ) from error
        except (UnreadableFile, pa.ArrowException, OSError) as error:
            # A failing disk or network is an OSError too, and must not pass for a corrupt file.
            if isinstance(error, OSError) and (error.errno is not None or not _CORRUPTION.search(str(error))):
                raise
            kind = " in ".join(filter(None, (piece.format, piece.compression)))
            why = f"{piece.uri} cannot be read as {kind}: {error}"
            if strict:
                raise ValueError(f"{why}; repair or remove it, or set data.strict to false to skip such files") from error
            counts.skipped_files += 1
            counts.note(why)


def _documents(part: CorpusPart, strict: bool, counts: ReadCounts, limit: int) -> Iterator[str]:
    if part.format == "txt":
        yield from _read_txt(part, strict, counts, limit)
    elif part.format == "builtin":
        for text in _builtin_values(part):
            yield from _pieces_of(well_formed(text), counts, limit)  # an escape in a docstring can name half of a pair
    else:
        for (text,) in _rows(part, strict, counts):
            yield from _pieces_of(text or "", counts, limit)


def _rows(part: CorpusPart, strict: bool, counts: ReadCounts) -> Iterator[Row]:
    if part.format == "jsonl":
        return _jsonl_rows(part, strict, counts)
    if part.format == "tsv":
        return _tsv_rows(part, strict, counts)
    if part.format == "parquet":
        rows = _parquet_rows(part)
    elif part.format == "arrow":
        rows = _arrow_rows(part)
    else:
        assert part.format == "hub", f"{part.format} has no columns"
        rows = hub_dataset.read_rows(part.uri, part.columns, part.start, part.stop)
    return _without_broken_lists(rows, part, strict, counts)


def _without_broken_lists(rows: Iterator[Row], part: CorpusPart, strict: bool, counts: ReadCounts) -> Iterator[Row]:
    """A table's types say that its lists hold strings, but they may hold nulls as well."""
    for number, row in enumerate(rows, start=1):
        broken = [column for column, value in zip(part.columns, row, strict=True) if isinstance(value, list) and None in value]
        if not broken:
            yield row
            continue
        place = f"row {number}" if not part.start else f"row {number} of the part that begins at {_UNITS[part.format]} {part.start}"
        why = f"{part.uri}, {place}, holds a null in the list under {broken[0]!r}, but should hold strings"
        if strict:
            raise ValueError(f"{why}; repair or remove it, or set data.strict to false to skip such rows with a count")
        counts.skipped_lines += 1
        counts.note(why)


def _pieces_of(text: str, counts: ReadCounts, limit: int) -> Iterator[str]:
    if not text or text.isspace():
        counts.empty_documents += 1
        return
    raw = text.encode()
    counts.documents += 1
    counts.bytes += len(raw)
    counts.split_documents += len(raw) > limit
    for _, piece in pieces_of(raw, limit):
        yield piece.decode()


def _read_txt(part: CorpusPart, strict: bool, counts: ReadCounts, limit: int) -> Iterator[str]:
    with open_stream(part.uri, part.compression) as source:
        for piece in paragraphs(source, part.start or 0, part.stop, limit):
            try:
                text = text_of(piece.content)
            except UnicodeDecodeError as error:
                _skip(part, piece.offset + error.start, f"is not UTF-8 ({error.reason})", strict, counts)
                continue
            if piece.first:
                counts.documents += 1
                counts.split_documents += not piece.last
            if text and not text.isspace():
                counts.bytes += len(piece.content)
                yield text


def _skip(part: CorpusPart, offset: int, why: str, strict: bool, counts: ReadCounts) -> None:
    if strict:
        raise ValueError(
            f"{part.uri}:{line_number(part.uri, part.compression, offset)} {why}; repair or remove it, or set data.strict to false "
            "to skip such lines with a count"
        )
    counts.skipped_lines += 1
    if len(counts.messages) < _MESSAGES:
        counts.note(f"{part.uri}:{line_number(part.uri, part.compression, offset)} {why}")


def _jsonl_rows(part: CorpusPart, strict: bool, counts: ReadCounts) -> Iterator[Row]:
    with open_stream(part.uri, part.compression) as source:
        for offset, line in lines(source, part.start or 0, part.stop):
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode())
            except UnicodeDecodeError as error:
                _skip(part, offset, f"is not UTF-8 ({error.reason})", strict, counts)
                continue
            except (ValueError, RecursionError) as error:
                _skip(part, offset, f"is not JSON ({error}), but every line should be one JSON object", strict, counts)
                continue
            if not isinstance(record, dict):
                _skip(part, offset, f"is a JSON {type(record).__name__}, but should be an object", strict, counts)
                continue
            row = []
            for column in part.columns:
                try:
                    row.append(find_value(record, column))
                except KeyError:
                    keys = ", ".join(list(record)[:8]) or "none"
                    _skip(part, offset, f"has no key {column!r}; its keys are {keys}", strict, counts)
                    break
                if not holds_text(row[-1], lists=bool(part.source_column)):
                    _skip(part, offset, f"holds a {kind_of(row[-1])} under {column!r}, but should hold a string", strict, counts)
                    break
            else:
                yield tuple(row)


def _tsv_rows(part: CorpusPart, strict: bool, counts: ReadCounts) -> Iterator[Row]:
    needed = max(part.places) + 1
    with open_stream(part.uri, part.compression) as source:
        for offset, line in lines(source, part.start or 0, part.stop):
            if (part.header and offset <= _BOM_BYTES) or not line.strip(b" "):  # but tabs alone are a row of empty fields
                continue
            try:
                fields = line.decode().split("\t")
            except UnicodeDecodeError as error:
                _skip(part, offset, f"is not UTF-8 ({error.reason})", strict, counts)
                continue
            if len(fields) < needed:
                _skip(part, offset, f"has {len(fields)} tab-separated column(s), but should have {needed}", strict, counts)
                continue
            yield tuple(fields[place] for place in part.places)


def _parquet_rows(part: CorpusPart) -> Iterator[Row]:
    with open_file(part.uri) as source:
        parquet = pq.ParquetFile(source)
        groups = None if part.start is None or part.stop is None else list(range(part.start, part.stop))
        names = top_level(parquet.schema_arrow, part.columns)
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups, columns=names):
            yield from _values_of(batch, part)


def _arrow_rows(part: CorpusPart) -> Iterator[Row]:
    with open_file(part.uri) as source:
        if not is_ipc_file(source):
            stream = pa.ipc.open_stream(source)
            names = top_level(stream.schema, part.columns)
            for batch in stream:
                yield from _values_of(batch.select(names), part)
            return
        schema = pa.ipc.open_file(source).schema
        fields = [schema.get_field_index(name) for name in top_level(schema, part.columns)]
        reader = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=fields))
        for i in range(part.start or 0, reader.num_record_batches if part.stop is None else part.stop):
            yield from _values_of(reader.get_batch(i), part)


def _values_of(batch: pa.RecordBatch, part: CorpusPart) -> Iterator[Row]:
    columns = [find_column(batch, name) for name in part.columns]
    for column in columns:
        column.validate(full=True)  # ArrowInvalid where a value is not UTF-8
    yield from zip(*(column.to_pylist() for column in columns), strict=True)


def _builtin_values(part: CorpusPart) -> Iterator[str]:
    name = part.uri.removeprefix("builtin:")
    version = builtin.version_of(name)
    if version != part.version:
        raise ValueError(
            f"the corpus was resolved with the documentation of {name} {part.version}, but the node that reads it has "
            f"{version or 'none'}; install the same packages on every node, or pass data.paths"
        )
    yield from builtin.documents(name)
