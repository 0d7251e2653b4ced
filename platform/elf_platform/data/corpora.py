"""Where the text lies and how it is cut into parts: the plan that preparation spreads over workers.

The parts depend on the files and the settings alone, never on the number of workers; each document belongs to exactly one part,
the one in which its first byte lies.
"""

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from elf_platform.data import builtin, hub_dataset
from elf_platform.data.columns import find_tabs, find_type, find_value, holds_text, is_text, kind_of
from elf_platform.data.files import Compression, FoundFile, find_files, open_file, open_stream

if TYPE_CHECKING:
    from elf_platform.config import DataConfig

Format = Literal["txt", "tsv", "jsonl", "parquet", "arrow", "builtin", "hub"]

_MEGABYTE = 1_000_000
_PROBE_BYTES = 1 << 20  # read from a .jsonl file to see whether it has the text column
_PARTS = 32  # cut a corpus into about this many parts at least ...
_SMALLEST_PART = 4 * 1024 * 1024  # ... unless they became smaller than this, where starting a task costs more than it does
_NO_PAIRS = (
    "data.source_column asks for pairs of source and target, but data.paths names no files, and the built-in corpus holds none; give the "
    "files, such as the sentence pairs of Tatoeba (a .txt of English, German and attribution in each line, from manythings.org/anki: "
    "data.source_column 2, data.text_column 1) or the abstracts and summaries of SciTLDR (.jsonl, from github.com/allenai/scitldr)"
)
_INSPECTORS = 8  # files looked into at once: nearly all waiting where they are remote


@dataclass(frozen=True, kw_only=True)
class CorpusPart:
    """What one task reads, about `data.shard_mb` megabytes: a file, a range of one, or several small files in order."""

    index: int
    """Place in the corpus."""
    uri: str
    """Absolute path or filesystem URI; builtin:PACKAGE; hub:NAME:SPLIT."""
    format: Format
    text_column: str = "text"
    source_column: str = ""
    """Pairs: column of the source; the text column then holds the target."""
    places: tuple[int, ...] = ()
    """tsv: the columns' fields in a line, from 0."""
    header: bool = False
    """tsv: the first line of the file holds names."""
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


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The parts in their fixed order; the fingerprint changes with a file, its time, a setting of the cut or a package."""

    name: str
    parts: tuple[CorpusPart, ...]
    fingerprint: str


def resolve(config: "DataConfig") -> Corpus:
    """Find what `config.paths` names and cut it into parts; looks into every file's head, so a wrong column is found here.

    Raises FileNotFoundError when a path is missing, and ValueError when a path holds no text of a known type, a file has no such
    column, the corpus is empty, or (strict) a file is corrupt.
    """
    if config.shard_mb <= 0:
        raise ValueError(f"data.shard_mb is {config.shard_mb}, but must be above 0; 64 is the default")
    share = max(1, int(config.shard_mb * _MEGABYTE))
    pairs = bool(config.source_column)
    if not config.paths and pairs:
        raise ValueError(_NO_PAIRS)
    if not config.paths:
        return _builtin()
    pieces: list[CorpusPart] = []
    identity: list[object] = []
    found: dict[str, FoundFile] = {}
    for path in config.paths:
        if path.startswith(hub_dataset.PREFIX):
            data_set = hub_dataset.describe(path)
            _check_columns(data_set.schema, _piece(path, "hub", config, 0))
            identity.append([data_set.uri, data_set.fingerprint])
            ranges = _ranges(data_set.rows, data_set.size, share)
            pieces += [_piece(data_set.uri, "hub", config, data_set.size // len(ranges), *span) for span in ranges]
        else:
            found |= {file.uri: file for file in find_files(path, pairs=pairs)}
    files = [found[uri] for uri in sorted(found) if found[uri].size > 0]
    # A corpus of a few shards would leave most CPUs idle. The cut depends on the corpus alone, never on the workers.
    share = min(share, max(_SMALLEST_PART, sum(file.size for file in files) // _PARTS))
    with ThreadPoolExecutor(_INSPECTORS) as pool:
        for inspected in pool.map(lambda file: _inspect(file, config, share), files):
            pieces += inspected
    if not pieces:
        raise ValueError(
            f"the corpus is empty: data.paths {' '.join(config.paths)} names {len(found)} file(s), and none holds any text; "
            "pass other files, or no path for the built-in corpus"
        )
    root = _common_root([file.uri for file in files])
    identity += [[file.uri[len(root) :], file.size, file.modified_ns, file.format, file.compression] for file in files]
    parts = tuple(replace(part, index=i) for i, part in enumerate(_grouped(pieces, share)))
    name = config.paths[0].removeprefix(hub_dataset.PREFIX) if not files else os.path.basename((root or files[0].uri).rstrip("/"))
    return Corpus(name=name or "corpus", parts=parts, fingerprint=_digest([identity, *reversed(config.columns), share]))


def _builtin() -> Corpus:
    found = builtin.sources()
    pieces = (CorpusPart(index=i, uri=f"builtin:{source.name}", format="builtin", version=source.version) for i, source in enumerate(found))
    identity = ["builtin", builtin.REVISION, [[source.name, source.version] for source in found]]
    return Corpus(name="builtin", parts=tuple(pieces), fingerprint=_digest(identity))


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()


def _piece(uri: str, format: Format, config: "DataConfig", size: int, start: int | None = None, stop: int | None = None) -> CorpusPart:
    return CorpusPart(
        index=0, uri=uri, format=format, text_column=config.text_column, source_column=config.source_column, start=start, stop=stop,
        size=size,
    )


def _ranges(count: int, size: int, share: int) -> list[tuple[int, int]]:
    """``count`` things of ``size`` bytes in all, cut into even ranges of about ``share`` bytes each."""
    pieces = max(1, min(count, round(size / share)))
    edges = [count * i // pieces for i in range(pieces + 1)]
    return list(itertools.pairwise(edges))


def _inspect(file: FoundFile, config: "DataConfig", share: int) -> list[CorpusPart]:
    """The pieces of one file. A corrupt one is left whole to the reader, which counts it, unless strict."""
    whole = replace(_piece(file.uri, file.format, config, file.size), compression=file.compression)
    try:
        if file.format in ("txt", "tsv", "jsonl"):
            if file.format == "jsonl":
                _probe_jsonl(file, whole)
            elif file.format == "tsv":
                whole = _probe_tsv(file, whole)
            if file.compression or file.size <= 1.5 * share:
                return [whole]
            spans = _ranges(file.size, file.size, share)
        elif file.format == "parquet":
            spans = _row_groups(file, whole, share)
        else:
            spans = _record_batches(file, whole, share)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        if config.strict:
            raise ValueError(
                f"{file.uri} cannot be read as {file.format} ({error}); fetch or write the file again, remove it, or set data.strict "
                "to false to skip such files"
            ) from error
        return [whole]
    if len(spans) < 2:
        return [whole] if spans else []
    return [replace(whole, start=start, stop=stop, size=file.size // len(spans)) for start, stop in spans]


def _row_groups(file: FoundFile, part: CorpusPart, share: int) -> list[tuple[int, int]]:
    """Ranges of row groups with about ``share`` bytes of text each, as the file's metadata says."""
    with open_file(file.uri) as source:
        parquet = pq.ParquetFile(source)
        _check_columns(parquet.schema_arrow, part)
        metadata = parquet.metadata
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


def _record_batches(file: FoundFile, part: CorpusPart, share: int) -> list[tuple[int, int]]:
    """Ranges of record batches; a stream can only be read from its beginning and stays whole."""
    with open_file(file.uri) as source:
        if is_ipc_file(source):
            reader = pa.ipc.open_file(source)
            _check_columns(reader.schema, part)
            return _ranges(reader.num_record_batches, file.size, share) if reader.num_record_batches else []
        _check_columns(pa.ipc.open_stream(source).schema, part)
        return [(0, 0)]


def is_ipc_file(source: pa.NativeFile) -> bool:
    """Whether an Arrow file has the random-access layout (True) or is a stream; leaves the position at the start."""
    source.seek(0)
    magic = source.read(6)
    source.seek(0)
    return bool(magic == b"ARROW1")


def _settings_of(part: CorpusPart) -> list[tuple[str, str]]:
    """The columns of a part with the settings that name them."""
    named = [("data.source_column", part.source_column)] if part.source_column else []
    return [*named, ("data.text_column", part.text_column)]


def _check_columns(schema: pa.Schema, part: CorpusPart) -> None:
    pairs = bool(part.source_column)
    for setting, column in _settings_of(part):
        try:
            kind = find_type(schema, column)
        except KeyError:
            names = ", ".join(schema.names)
            raise ValueError(f"{part.uri} has no column {column!r}; its columns are {names}: set {setting} to one of them") from None
        if not is_text(kind, lists=pairs):
            text = [field.name for field in schema if is_text(field.type, lists=pairs)]
            raise ValueError(
                f"the column {column!r} of {part.uri} holds {kind}, not text; columns that hold text: {', '.join(text) or 'none'}: "
                f"set {setting} to one of them"
            )


def _probe_jsonl(file: FoundFile, part: CorpusPart) -> None:
    """Refuse a file in whose first records a column is never there, or never text; broken lines are the reader's business."""
    with open_stream(file.uri, file.compression) as source:
        head = source.read(_PROBE_BYTES)
    records = list(_records(head.split(b"\n")[: 100 if b"\n" in head else 0] or [head]))
    if not records:
        return
    for setting, column in _settings_of(part):
        found = [value for record in records for value in _values(record, column)]
        if not found:
            keys = ", ".join(records[0]) or "none"
            raise ValueError(f"{file.uri} has no key {column!r}; the keys of its first record are {keys}: set {setting} to one of them")
        if not any(holds_text(value, lists=bool(part.source_column)) for value in found):
            text = ", ".join(key for key, value in records[0].items() if isinstance(value, str))
            raise ValueError(
                f"the key {column!r} of {file.uri} holds a {kind_of(found[0])}, not text; keys that hold text: {text or 'none'}: "
                f"set {setting} to one of them"
            )


def _values(record: dict[str, object], column: str) -> Iterator[object]:
    """The column's value, when the record has one."""
    with contextlib.suppress(KeyError):
        yield find_value(record, column)


def _probe_tsv(file: FoundFile, part: CorpusPart) -> CorpusPart:
    """The part with the places of its columns; refuses a file whose first line does not have them."""
    with open_stream(file.uri, file.compression) as source:
        head = source.read(_PROBE_BYTES)
    try:
        tabs = find_tabs(head.partition(b"\n")[0].decode("utf-8-sig", "replace"), part.columns)
    except ValueError as error:
        raise ValueError(f"{file.uri} {error} (data.source_column, data.text_column)") from error
    return replace(part, places=tabs.places, header=tabs.header)


def _records(lines: Sequence[bytes]) -> Iterator[dict[str, object]]:
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record


def _grouped(pieces: Sequence[CorpusPart], share: int) -> Iterator[CorpusPart]:
    """Neighbouring whole files put together while they stay within ``share`` bytes, so that many small files make few parts."""
    group: list[CorpusPart] = []
    for piece in pieces:
        ranged = piece.start is not None or (group and group[0].start is not None)
        if group and (ranged or sum(part.size for part in group) + piece.size > share):
            yield replace(group[0], rest=tuple(group[1:]))
            group = []
        group.append(piece)
    if group:
        yield replace(group[0], rest=tuple(group[1:]))


def _common_root(uris: Sequence[str]) -> str:
    """The folders that all files share, with a closing slash: names below it are the same on every machine."""
    folders = zip(*(uri.split("/")[:-1] for uri in uris), strict=False)
    shared = itertools.takewhile(lambda names: len(set(names)) == 1, folders)
    return "".join(names[0] + "/" for names in shared)
