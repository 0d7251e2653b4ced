"""From a part of the corpus to its documents, as a stream: no file, and no document above a limit, is held in memory whole.

The one reader of texts: preparation, sampling and evaluation differ in the columns that they ask for, and in what they make of null and
of lists (docs/data.md).
"""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from elf.data.tokenizer import well_formed
from elf_platform.data import builtin, hub_dataset
from elf_platform.data.columns import as_record, find_column, find_value, holds_text, kind_of, top_level
from elf_platform.data.files import READ_ERRORS, UnreadableFile, is_damage, open_stream, open_table
from elf_platform.data.parts import CorpusPart, is_blank, is_ipc_file, parse_json
from elf_platform.data.text_ranges import line_number, lines, paragraphs, pieces_of, text_of

MAX_DOCUMENT_BYTES = 8 << 20
"""Longer documents are yielded in consecutive pieces of at most this many bytes of UTF-8."""

Row = tuple[Any, ...]
Place = int | str
"""Where a row stands: the byte at which its line begins, or words such as "row 3"."""
T = TypeVar("T")

LONG_RUN = 100
"""Lines without a blank one among them from which on a document of a .txt is told of."""

_BATCH_ROWS = 1000
_MESSAGES = 5
_UNITS = {"parquet": "row group", "arrow": "record batch", "hub": "row"}
_LONGEST_FIELD = 1 << 28  # characters of a field of a csv: where a quote is never closed, the rest of the file would be held in memory
_BLANK = object()


class RefusedInput(ValueError):
    """Input that cannot be read, where nothing may be skipped. ``what``: the message without advice."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what}; {advice}")
        self.what = what


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
    further_targets: int = 0
    """Pairs: targets of a list behind its first, which alone is trained on."""
    long_runs: int = 0
    """Documents of .txt files with so many lines and no blank one among them that each line may be meant as a document."""
    long_examples: list[str] = field(default_factory=list)
    """A few of them, "file (lines)"."""
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


def read_rows(part: CorpusPart, *, strict: bool, counts: ReadCounts, blanks: bool = False) -> Iterator[Row]:
    """The values of ``part.columns``, row by row in file order: text, null or (where the part allows them) lists of strings.

    ``blanks``: blank lines are rows of nulls, and are else passed over. Raises what ``read_documents`` does."""
    yield from _each_file(part, lambda piece: _rows(piece, strict, counts, blanks), strict, counts)


def _each_file(part: CorpusPart, read: Callable[[CorpusPart], Iterator[T]], strict: bool, counts: ReadCounts) -> Iterator[T]:
    for piece in (part, *part.rest):
        try:
            yield from read(piece)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{piece.uri} was there when the corpus was listed, but cannot be found by the process that reads it; put the files "
                "where every node sees them under the same path (a shared disk, s3:// or gs://)"
            ) from error
        except READ_ERRORS as error:
            if not is_damage(error):
                raise
            kind = " in ".join(filter(None, (piece.format, piece.compression)))
            why = f"{piece.uri} cannot be read as {kind}: {error}"
            if strict:
                raise RefusedInput(why, "repair or remove it, or set data.strict to false to skip such files") from error
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


def _rows(part: CorpusPart, strict: bool, counts: ReadCounts, blanks: bool = False) -> Iterator[Row]:
    """Values of the columns that are text, null or (where the part allows) lists of strings; other rows are skipped or refused."""
    fields = part.format in ("tsv", "csv", "lines")  # of which each is text
    for row, place in _raw_rows(part, strict, counts):
        if row is None:
            if blanks:
                yield (None,) * len(part.columns)
            continue
        if fields:
            yield row
            continue
        bad = next((i for i, value in enumerate(row) if not holds_text(value, lists=part.lists)), None)
        if bad is None:
            yield row
        else:
            why = f"holds a {kind_of(row[bad])} under {part.columns[bad]!r}, but should hold {'text' if part.lists else 'a string'}"
            _skip(part, place, why, strict, counts)


def _raw_rows(part: CorpusPart, strict: bool, counts: ReadCounts) -> Iterator[tuple[Row | None, Place]]:
    """Values of the columns, whatever they are, or None for a blank line, with their place; lines that cannot be read are skipped."""
    if part.format in ("jsonl", "json"):
        return _json_rows(part, strict, counts)
    if part.format in ("tsv", "csv", "lines"):
        return _line_rows(part, strict, counts)
    if part.format == "parquet":
        rows = _parquet_rows(part)
    elif part.format == "arrow":
        rows = _arrow_rows(part)
    else:
        assert part.format == "hub", f"{part.format} has no columns"
        rows = hub_dataset.read_rows(part.uri, part.columns, part.start, part.stop)
    within = f" of the part that begins at {_UNITS[part.format]} {part.start}" if part.start else ""
    return ((row, f"row {number}{within}") for number, row in enumerate(rows, start=1))


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
    held = 0  # lines of the document so far
    with open_stream(part.uri, part.compression) as source:
        for piece in paragraphs(source, part.start or 0, part.stop, limit):
            try:
                text = text_of(piece.content)
            except UnicodeDecodeError as error:
                _skip(part, piece.offset + error.start, f"is not UTF-8 ({error.reason})", strict, counts)
                continue
            held = piece.content.count(b"\n") + (0 if piece.first else held)
            if piece.last and held >= LONG_RUN:
                counts.long_runs += 1
                counts.long_examples += [f"{part.uri} ({held + 1:,} lines)"][: _MESSAGES - len(counts.long_examples)]
            if piece.first:
                counts.documents += 1
                counts.split_documents += not piece.last
            if text and not text.isspace():
                counts.bytes += len(piece.content)
                yield text


def _skip(part: CorpusPart, place: Place, why: str, strict: bool, counts: ReadCounts) -> None:
    """``place``: where a line begins, or words such as "row 3"."""
    if strict or len(counts.messages) < _MESSAGES:
        words = isinstance(place, str)
        where = f"{part.uri}, {place}" if words else f"{part.uri}:{line_number(part.uri, part.compression, int(place))}"
        if strict:
            raise RefusedInput(f"{where} {why}", "repair or remove it, or set data.strict to false to skip such lines with a count")
        counts.note(f"{where} {why}")
    counts.skipped_lines += 1


def _json_rows(part: CorpusPart, strict: bool, counts: ReadCounts) -> Iterator[tuple[Row | None, Place]]:
    for place, record in _json_values(part, strict, counts):
        if record is _BLANK:
            yield None, place
            continue
        if not isinstance(record, dict):
            _skip(part, place, f"is a JSON {type(record).__name__}, but should be an object", strict, counts)
            continue
        row = []
        for column in part.columns:
            try:
                row.append(find_value(record, column))
            except KeyError:
                keys = ", ".join(list(record)[:8]) or "none"
                _skip(part, place, f"has no key {column!r}; its keys are {keys}", strict, counts)
                break
        else:
            yield tuple(row), place


def _json_values(part: CorpusPart, strict: bool, counts: ReadCounts) -> Iterator[tuple[Place, Any]]:
    """What the lines hold, or the elements of an array; _BLANK for a blank line."""
    if part.format == "json":
        with open_stream(part.uri, part.compression) as source:
            whole = parse_json(source.read())
        if whole is not None:
            yield from ((f"record {number}", record) for number, record in enumerate(whole, start=1))
            return
    keys = {key for column in part.columns for key in (column, *column.split("."))}
    forms = [{json.dumps(key, ensure_ascii=ascii).encode() for ascii in (True, False)} for key in keys]
    with open_stream(part.uri, part.compression) as source:
        for offset, line in lines(source, part.start or 0, part.stop):
            if not line.strip():
                yield offset, _BLANK
                continue
            # The hook costs as much again as the line, so it runs where it may matter.
            twice = any(sum(map(line.count, some)) > 1 for some in forms)
            try:
                record = json.loads(line.decode(), object_pairs_hook=as_record if twice else None)
            except UnicodeDecodeError as error:
                _skip(part, offset, f"is not UTF-8 ({error.reason})", strict, counts)
            except (ValueError, RecursionError) as error:
                _skip(part, offset, f"is not JSON ({error}), but every line should be one JSON object", strict, counts)
            else:
                yield offset, record


def _line_rows(part: CorpusPart, strict: bool, counts: ReadCounts) -> Iterator[tuple[Row | None, Place]]:
    """Rows of tab- or comma-separated fields, or whole lines."""
    needed = max(part.places, default=-1) + 1
    names_left = part.header > 0 and not part.start
    with open_stream(part.uri, part.compression) as source:
        for offset, fields in _csv_fields(part, source) if part.format == "csv" else _fields(part, source):
            if fields is None:
                _skip(part, offset, "is not UTF-8", strict, counts)
            elif names_left:
                names_left = is_blank(fields)
            elif part.format == "lines":
                yield (fields[0],), offset
            elif len(fields) <= 1 and is_blank(fields):
                yield None, offset
            elif len(fields) < needed:
                _skip(part, offset, f"has {len(fields)} column(s), but should have {needed}", strict, counts)
            elif part.header and any(fields[part.header :]):
                why = f"has {len(fields)} columns, but the first line names {part.header}: separators in a text "
                _skip(part, offset, why + ("stand in double quotes" if part.format == "csv" else "cannot be told apart"), strict, counts)
            else:
                yield tuple([fields[place] for place in part.places]), offset


def _fields(part: CorpusPart, source: BinaryIO) -> Iterator[tuple[int, list[str] | None]]:
    """Where each line begins and its fields, None for one that is not UTF-8."""
    whole = part.format == "lines"
    for offset, line in lines(source, part.start or 0, part.stop):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            yield offset, None
            continue
        yield offset, [text] if whole else text.split("\t")


def _csv_fields(part: CorpusPart, source: BinaryIO) -> Iterator[tuple[int, list[str] | None]]:
    """Rows by the quoting of RFC 4180, as ``_fields`` gives them; a row may lie in several lines."""
    taken: list[int] = []  # where the lines of the row begin
    broken = False  # one of them is not UTF-8

    def texts() -> Iterator[str]:
        nonlocal broken
        for offset, line in lines(source, 0, None):
            taken.append(offset)
            try:
                text = line.decode()
            except UnicodeDecodeError:
                text, broken = line.decode(errors="replace"), True
            yield text + "\n"

    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(texts(), strict=True)
    while True:
        taken.clear()
        broken = False
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            where = line_number(part.uri, part.compression, taken[0])
            raise UnreadableFile(f"line {where}: {error}; fields with quotes, commas or line breaks stand in double quotes") from error
        yield taken[0], None if broken else fields


def _parquet_rows(part: CorpusPart) -> Iterator[Row]:
    with open_table(part.uri, part.compression) as source:
        parquet = pq.ParquetFile(source)
        groups = None if part.start is None or part.stop is None else list(range(part.start, part.stop))
        names = top_level(parquet.schema_arrow, part.columns)
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups, columns=names):
            yield from _values_of(batch, part)


def _arrow_rows(part: CorpusPart) -> Iterator[Row]:
    with open_table(part.uri, part.compression) as source:
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
