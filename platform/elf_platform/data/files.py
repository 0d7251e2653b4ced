"""Finding and opening text files, on local disks and on every filesystem that pyarrow knows."""

import glob
import os
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.fs as pafs

FileFormat = Literal["txt", "tsv", "jsonl", "parquet", "arrow"]
Compression = Literal["", "gzip", "zstd"]

_FORMATS: dict[str, FileFormat] = {".txt": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".arrow": "arrow"}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
_MAGIC = re.compile(r"[*?\[]")
_REMOTE_MAGIC = re.compile(r"[*\[]")  # in a URI the question mark starts the query
_RETRY_SECONDS = 30  # Google's client keeps asking an unreachable server for a quarter of an hour by default
KNOWN_TYPES = ".txt, .jsonl and .ndjson (each also .gz or .zst), .parquet, .arrow"
_PAIR_FORMATS: dict[str, FileFormat] = _FORMATS | {".tsv": "tsv", ".txt": "tsv"}  # without columns there are no pairs
PAIR_TYPES = ".tsv, .txt (tab-separated), .jsonl and .ndjson (each also .gz or .zst), .parquet, .arrow"


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


def file_type(name: str, *, pairs: bool = False) -> tuple[FileFormat, Compression] | None:
    """Format and compression by the name's ending, None for anything unknown. ``pairs``: of a file with columns."""
    stem, suffix = os.path.splitext(name.lower())
    compression = _COMPRESSIONS.get(suffix, "")
    if compression:
        suffix = os.path.splitext(stem)[1]
    kind = (_PAIR_FORMATS if pairs else _FORMATS).get(suffix)
    if kind is None or (compression and kind not in ("txt", "tsv", "jsonl")):
        return None
    return kind, compression


def find_files(pattern: str, *, pairs: bool = False) -> list[FoundFile]:
    """The text files that a path, a folder, a glob or a URI stands for; hidden files are left out unless named. ``pairs``: files with
    columns.

    Raises FileNotFoundError when there is nothing, ValueError when nothing there is of a known type or the URI cannot be opened.
    """
    if pattern.startswith("file://"):
        pattern = urllib.parse.unquote(urllib.parse.urlsplit(pattern).path)
    found = _find_remote(pattern) if "://" in pattern else _find_local(os.path.abspath(os.path.expanduser(pattern)))
    if not found:
        hint = "the address" if "://" in pattern else f"the path (relative ones start in {os.getcwd()})"
        raise FileNotFoundError(f"data.paths has {pattern!r}, but nothing matches it; check {hint}")
    known = [file for uri, info in found for file in _typed(uri, info, pairs)]
    if not known:
        names = ", ".join(sorted(os.path.basename(_bare(uri)) for uri, _ in found)[:3])
        raise ValueError(
            f"data.paths has {pattern!r}, but no file there is of a known type (found {names}); "
            f"the known types are {PAIR_TYPES if pairs else KNOWN_TYPES}: rename or convert the files"
        )
    return known


def open_file(uri: str) -> pa.NativeFile:
    """The file for reading at any place. Raises OSError when it is gone or may not be read."""
    if "://" not in uri:
        return pa.OSFile(uri, "rb")
    filesystem, root = _filesystem(uri)
    return filesystem.open_input_file(_inside(uri, root))


def open_stream(uri: str, compression: Compression) -> pa.NativeFile:
    """The file's content from the beginning, decompressed."""
    file = open_file(uri)
    return pa.CompressedInputStream(file, compression) if compression else file


def glob_filesystem(filesystem: pafs.FileSystem, pattern: str) -> list[pafs.FileInfo]:
    """Files of a filesystem whose path matches a glob of *, [...] and ** (any number of folders), sorted by path."""
    parts = pattern.split("/")
    fixed = next(i for i, part in enumerate(parts) if _REMOTE_MAGIC.search(part))
    deep = fixed < len(parts) - 1 or parts[-1] == "**"
    selector = pafs.FileSelector("/".join(parts[:fixed]), allow_not_found=True, recursive=deep)
    wanted = re.compile("".join(_component(part, last=i == len(parts) - 1) for i, part in enumerate(parts)))
    infos = filesystem.get_file_info(selector)
    files = [info for info in infos if info.type == pafs.FileType.File and wanted.fullmatch(info.path)]
    return sorted(files, key=lambda info: str(info.path))


def _component(part: str, *, last: bool) -> str:
    """One step of a glob as a regular expression; wild cards leave hidden names out, as in a shell."""
    visible = r"(?!\.)[^/]+"
    if part == "**":
        return f"(?:{visible}/)*{visible if last else ''}"
    translated = re.sub(r"\\\[(!?)([^\]]+?)\\\]", _character_class, re.escape(part).replace(r"\*", "[^/]*"))
    hidden = "" if part.startswith(".") else r"(?!\.)"
    return hidden + translated + ("" if last else "/")


def _character_class(match: re.Match[str]) -> str:
    return f"[{'^' if match.group(1) else ''}{match.group(2).replace(chr(92), '')}]"


def _typed(uri: str, info: tuple[int, int], pairs: bool) -> Iterator[FoundFile]:
    kind = file_type(_bare(uri), pairs=pairs)
    if kind is not None:
        yield FoundFile(uri=uri, format=kind[0], compression=kind[1], size=info[0], modified_ns=info[1])


def _find_local(path: str) -> list[tuple[str, tuple[int, int]]]:
    if os.path.isdir(path):
        names = list(_walk(path))
    elif os.path.exists(path):
        names = [path]
    elif _MAGIC.search(path):
        names = sorted(name for name in glob.glob(path, recursive=True) if os.path.isfile(name))
    else:
        return []
    stats = [(name, os.stat(name)) for name in names]
    return [(name, (stat.st_size, stat.st_mtime_ns)) for name, stat in stats]


def _walk(folder: str) -> Iterator[str]:
    """Files below a folder in sorted order, links followed once, hidden files and folders left out."""
    visited = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(place, name)
            if not name.startswith(".") and os.path.isfile(path):
                yield path


def _find_remote(uri: str) -> list[tuple[str, tuple[int, int]]]:
    filesystem, root = _filesystem(uri)
    path = _inside(uri, root)
    try:
        if _REMOTE_MAGIC.search(path):
            infos = glob_filesystem(filesystem, path)
        else:
            info = filesystem.get_file_info(path)
            if info.type == pafs.FileType.Directory:
                infos = glob_filesystem(filesystem, path + "/**/*")
            else:
                infos = [info] if info.type == pafs.FileType.File else []
    except OSError as error:
        raise ValueError(
            f"data.paths has {uri!r}, but it cannot be listed ({error}); check the address, the credentials and the network"
        ) from error
    scheme, location, query = _split(uri)
    start = f"{scheme}://{location.partition('/')[0]}"
    return [(f"{start}/{info.path[len(root) :].lstrip('/')}{query}", (info.size or 0, info.mtime_ns or 0)) for info in infos]


def _filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a URI and the path in it that stands for the URI's authority."""
    scheme, location, query = _split(uri)
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


def _inside(uri: str, root: str) -> str:
    """A URI's path inside its filesystem; taken as it is written, so that keys with percent signs stay what they are."""
    return f"{root}/{_split(uri)[1].partition('/')[2]}".rstrip("/")


def _split(uri: str) -> tuple[str, str, str]:
    """Scheme, authority with path, and query with its question mark."""
    scheme, _, rest = uri.partition("://")
    location, mark, query = rest.partition("?")
    return scheme, location, mark + query


def _bare(uri: str) -> str:
    return uri.partition("?")[0] if "://" in uri else uri
