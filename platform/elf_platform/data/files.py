"""The table of formats by a name's ending, and files opened: on local disks and on every filesystem that pyarrow knows."""

import gzip
import lzma
import re
import shutil
import tempfile
import urllib.parse
import zlib
from dataclasses import dataclass
from typing import BinaryIO, Literal, cast

import pyarrow as pa
import pyarrow.fs as pafs
from backports import zstd

FileFormat = Literal["txt", "lines", "tsv", "csv", "jsonl", "json", "parquet", "arrow"]
"""lines: a .txt of which each line is one text; elsewhere its paragraphs are, or it holds tab-separated columns (tsv)."""
Compression = Literal["", "gzip", "zstd", "bz2", "xz"]

FORMATS: dict[str, FileFormat] = {
    ".txt": "txt", ".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet",
    ".arrow": "arrow",
}
"""What is read, by the ending of a file's name in any case; see docs/data.md."""
COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
KNOWN_TYPES = f"{', '.join(FORMATS)} (each also with {', '.join(COMPRESSIONS)})"
TABLES = ("parquet", "arrow")
"""Formats whose file is never empty, and whose rows have types."""

_WINDOW: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 31}
"""How far back zstd may reach: all that its tools write (--long=31). pyarrow refuses windows above 128 MiB."""
_RETRY_SECONDS = 30  # Google's client keeps asking an unreachable server for a quarter of an hour by default
_DAMAGE = re.compile(
    r"inflate|zlib|zstd|decompress|truncated|corrupt|thrift|snappy|unexpected end|parquet|magic|ipc|invalid data stream", re.I
)


class UnreadableFile(Exception):
    """A file that does not hold what its name says."""


READ_ERRORS = (UnreadableFile, pa.ArrowException, EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError, OSError)
"""What reading a file may raise; ``is_damage`` tells a broken file from a failing disk."""


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    """One file of the corpus."""

    uri: str
    """Absolute path, or URI with the query that opens its filesystem."""
    format: FileFormat
    compression: Compression
    size: int
    """Bytes."""
    modified_ns: int
    """Time of the last change; 0 where the filesystem does not say."""


def is_damage(error: BaseException) -> bool:
    """Whether an error of reading says that the file is broken. A failing disk or network is an OSError too, and must not pass for it."""
    if isinstance(error, gzip.BadGzipFile) or not isinstance(error, OSError):
        return True
    return error.errno is None and _DAMAGE.search(str(error)) is not None


def file_type(name: str) -> tuple[FileFormat, Compression] | None:
    """Format and compression by the name's ending, None for anything unknown."""
    stem, dot, suffix = name.lower().rpartition(".")
    compression = COMPRESSIONS.get(dot + suffix, "")
    if compression:
        _, dot, suffix = stem.rpartition(".")
    kind = FORMATS.get(dot + suffix)
    return (kind, compression) if kind else None


def open_file(uri: str) -> pa.NativeFile:
    """The file for reading at any place. Raises OSError when it is gone or may not be read."""
    if "://" not in uri:
        return pa.OSFile(uri, "rb")
    filesystem, root = open_filesystem(uri)
    return filesystem.open_input_file(inside(uri, root))


def open_stream(uri: str, compression: Compression) -> BinaryIO:
    """The file's content from the beginning, decompressed."""
    file = open_file(uri)
    if not compression:
        return file
    if compression == "xz":
        return cast(BinaryIO, lzma.LZMAFile(file))
    if compression == "gzip" and _ends_in_zero(file):
        # Zeros that fill the last block of a tape belong to no member; pyarrow takes them for a broken one.
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if compression == "zstd":
        return cast(BinaryIO, zstd.ZstdFile(file, options=_WINDOW))
    return pa.CompressedInputStream(file, compression)


def open_table(uri: str, compression: Compression) -> pa.NativeFile:
    """A file that is read at any place; a compressed one is unpacked to a temporary file first."""
    if not compression:
        return open_file(uri)
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - closed with what is returned
    with open_stream(uri, compression) as source:
        shutil.copyfileobj(source, unpacked, 1 << 20)
    unpacked.seek(0)
    return pa.PythonFile(unpacked, "r")


def local_path(uri: str) -> str:
    """The path of a file:// URI; anything else as it is."""
    return urllib.parse.unquote(urllib.parse.urlsplit(uri).path) if uri.startswith("file://") else uri


def _ends_in_zero(file: pa.NativeFile) -> bool:
    size = file.size()
    file.seek(max(0, size - 1))
    last = file.read(1)
    file.seek(0)
    return bool(last == b"\0")


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a URI and the path in it that stands for the URI's authority."""
    scheme, location, query = split_uri(uri)
    if scheme in ("gs", "gcs") and "retry_limit_seconds" not in query:
        query += f"{'&' if query else '?'}retry_limit_seconds={_RETRY_SECONDS}"
    try:
        filesystem, root = pafs.FileSystem.from_uri(f"{scheme}://{location.partition('/')[0]}/{query}")
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"data.paths has {uri!r}, but that filesystem cannot be opened ({error}); use a local path, download the "
            "files first, or use a URI that pyarrow knows such as s3://BUCKET/PATH or gs://BUCKET/PATH"
        ) from error
    return filesystem, root.rstrip("/")


def inside(uri: str, root: str) -> str:
    """A URI's path inside its filesystem; taken as it is written, so that keys with percent signs stay what they are."""
    return f"{root}/{split_uri(uri)[1].partition('/')[2]}".rstrip("/")


def split_uri(uri: str) -> tuple[str, str, str]:
    """Scheme, authority with path, and query with its question mark."""
    scheme, _, rest = uri.partition("://")
    location, mark, query = rest.partition("?")
    return scheme, location, mark + query


def bare(uri: str) -> str:
    """The name without a URI's query."""
    return uri.partition("?")[0] if "://" in uri else uri
