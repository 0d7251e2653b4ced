"""From a part of the corpus to its documents, as a stream: no file, and no document above a limit, is held in memory whole."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from elf_platform.data import builtin, hub_dataset
from elf_platform.data.corpora import CorpusPart, is_ipc_file
from elf_platform.data.files import open_file, open_stream
from elf_platform.data.text_ranges import UnreadableFile, cut, line_number, lines, paragraphs

MAX_DOCUMENT_BYTES = 8 << 20
"""Longer documents are yielded in consecutive pieces of at most this many bytes of UTF-8."""

_BATCH_ROWS = 1000
_MESSAGES = 5
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
    for piece in (part, *part.rest):
        try:
            yield from _read(piece, strict, counts, max_bytes)
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


def _read(part: CorpusPart, strict: bool, counts: ReadCounts, limit: int) -> Iterator[str]:
    if part.format == "txt":
        yield from _read_txt(part, strict, counts, limit)
        return
    if part.format == "jsonl":
        values = _jsonl_values(part, strict, counts)
    elif part.format == "parquet":
        values = _parquet_values(part)
    elif part.format == "arrow":
        values = _arrow_values(part)
    elif part.format == "hub":
        values = hub_dataset.read_rows(part.uri, part.text_column, part.start, part.stop)
    else:
        values = _builtin_values(part)
    for value in values:
        yield from _pieces_of(value or "", counts, limit)


def _pieces_of(text: str, counts: ReadCounts, limit: int) -> Iterator[str]:
    if not text or text.isspace():
        counts.empty_documents += 1
        return
    raw = text.encode("utf-8", "replace")  # JSON can name halves of surrogate pairs, which are no characters
    counts.documents += 1
    counts.bytes += len(raw)
    counts.split_documents += len(raw) > limit
    while len(raw) > limit:
        end = cut(raw, limit)
        yield raw[:end].decode()
        raw = raw[end:]
    yield raw.decode()


def _read_txt(part: CorpusPart, strict: bool, counts: ReadCounts, limit: int) -> Iterator[str]:
    with open_stream(part.uri, part.compression) as source:
        for piece in paragraphs(source, part.start or 0, part.stop, limit):
            try:
                text = piece.content.decode()
            except UnicodeDecodeError as error:
                _skip(part, piece.offset + error.start, f"is not UTF-8 ({error.reason})", strict, counts)
                continue
            if piece.first:
                counts.documents += 1
                counts.split_documents += not piece.last
            if not text.isspace():
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


def _jsonl_values(part: CorpusPart, strict: bool, counts: ReadCounts) -> Iterator[str | None]:
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
            elif part.text_column not in record:
                keys = ", ".join(list(record)[:8]) or "none"
                _skip(part, offset, f"has no key {part.text_column!r}; its keys are {keys}", strict, counts)
            elif not isinstance(record[part.text_column], str | None):
                kind = type(record[part.text_column]).__name__
                _skip(part, offset, f"holds a {kind} under {part.text_column!r}, but should hold a string", strict, counts)
            else:
                yield record[part.text_column]


def _parquet_values(part: CorpusPart) -> Iterator[str | None]:
    with open_file(part.uri) as source:
        parquet = pq.ParquetFile(source)
        groups = None if part.start is None or part.stop is None else list(range(part.start, part.stop))
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups, columns=[part.text_column]):
            yield from _strings(batch)


def _arrow_values(part: CorpusPart) -> Iterator[str | None]:
    with open_file(part.uri) as source:
        if not is_ipc_file(source):
            for batch in pa.ipc.open_stream(source):
                yield from _strings(batch.select([part.text_column]))
            return
        schema = pa.ipc.open_file(source).schema
        options = pa.ipc.IpcReadOptions(included_fields=[schema.get_field_index(part.text_column)])
        reader = pa.ipc.open_file(source, options=options)
        for i in range(part.start or 0, reader.num_record_batches if part.stop is None else part.stop):
            yield from _strings(reader.get_batch(i))


def _strings(batch: pa.RecordBatch) -> Iterator[str | None]:
    column = batch.column(0)
    column.validate(full=True)  # ArrowInvalid where a value is not UTF-8
    yield from column.to_pylist()


def _builtin_values(part: CorpusPart) -> Iterator[str]:
    name = part.uri.removeprefix("builtin:")
    version = builtin.version_of(name)
    if version != part.version:
        raise ValueError(
            f"the corpus was resolved with the documentation of {name} {part.version}, but the node that reads it has "
            f"{version or 'none'}; install the same packages on every node, or pass data.paths"
        )
    yield from builtin.documents(name)
