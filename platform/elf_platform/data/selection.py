"""From a path, a folder, a glob or a URI to the files that are read, and to an account of everything there that is not."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow.fs as pafs

from elf_platform.data.files import (
    KNOWN_TYPES,
    TABLES,
    FoundFile,
    bare,
    file_type,
    inside,
    local_path,
    open_filesystem,
    split_uri,
)

_MAGIC = re.compile(r"[*?\[]")
_REMOTE_MAGIC = re.compile(r"[*\[]")  # in a URI the question mark starts the query
_EXAMPLES = 3

HIDDEN = "hidden"
NO_TYPE = "of no known type"
EMPTY = "of 0 bytes, which is no whole file of its type"
NOWHERE = "links that lead nowhere"
FOLDER = "folders that the pattern matches (name them, or their files, to read those)"
AGAIN = "folders that a link leads to once more"
TWICE = "named more than once, but read once"
NO_FILE = "no regular files"
JSON = "of .json, which often describes other files (name them, or *.json, to read them)"
NAME = "with names that are not UTF-8"


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Files and folders that the paths name and nobody reads, for one reason."""

    reason: str
    count: int
    examples: tuple[str, ...]
    """The first few names."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a pattern, or several, stand for."""

    files: tuple[FoundFile, ...]
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class _Entry:
    """Something that a pattern names: a file to read, unless there is a reason not to."""

    uri: str
    size: int = 0
    modified_ns: int = 0
    reason: str = ""


def select(patterns: Sequence[str], *, setting: str = "data.paths") -> Selection:
    """The text files that local paths, folders, globs and URIs stand for, each once, sorted; and what was left out, by reason.

    ``setting`` names them, in errors. Raises FileNotFoundError when a pattern matches nothing, ValueError when nothing that it matches can
    be read or a URI cannot be opened.
    """
    files: dict[str, FoundFile] = {}
    left: dict[tuple[str, str], None] = {}
    for pattern in patterns:
        known = 0
        entries = list(_entries(pattern))
        for entry in entries:
            uri, kind, reason = entry.uri, file_type(bare(entry.uri)), _reason(entry, pattern)
            if reason or kind is None:
                left[reason, uri] = None
                continue
            known += 1
            if uri in files:
                left[TWICE, uri] = None
            files[uri] = FoundFile(uri=uri, format=kind[0], compression=kind[1], size=entry.size, modified_ns=entry.modified_ns)
        if not known:
            raise _nothing(pattern, entries, setting)
    read = {*files, *(place for uri in files for place in _parents(uri))}  # by another pattern
    return Selection(
        files=tuple(files[uri] for uri in sorted(files)),
        left_out=account((reason, uri) for reason, uri in left if reason in (TWICE, AGAIN) or uri not in read),
    )


def select_one(path: str, *, what: str, setting: str) -> FoundFile:
    """The one file at ``path``, which ``setting`` names. Raises FileNotFoundError or ValueError, saying that ``what`` should be there."""
    path = os.path.abspath(os.path.expanduser(local_path(path)))
    if not os.path.exists(path):
        raise FileNotFoundError(f"there are no {what} at {shown(path)}: no such file; give one of {KNOWN_TYPES}")
    if not os.path.isfile(path):
        raise ValueError(f"{shown(path)} is no file, but {what} are one file, of {KNOWN_TYPES}; give that")
    (file,) = select([glob.escape(path)], setting=setting).files
    return file


def account(left: Iterable[tuple[str, str]]) -> tuple[LeftOut, ...]:
    """Pairs of reason and name, counted by reason in the order of the reasons."""
    names: dict[str, list[str]] = {}
    for reason, uri in left:
        names.setdefault(reason, []).append(uri)
    return tuple(
        LeftOut(reason=reason, count=len(some), examples=tuple(shown(os.path.basename(bare(uri).rstrip("/"))) for uri in some[:_EXAMPLES]))
        for reason, some in sorted(names.items())
    )


def left_out_line(left_out: Sequence[LeftOut]) -> str:
    """What was left out, in one line: "left out 2 of no known type (a.md, b.pdf); 1 hidden (.c)". Empty for nothing."""
    return "left out " + "; ".join(f"{one.count} {one.reason} ({_names(one)})" for one in left_out) if left_out else ""


def shown(name: str) -> str:
    """A file's name as it can be printed and stored: bytes that are not UTF-8 as \\udcXX."""
    return name.encode("utf-8", "backslashreplace").decode()


def glob_filesystem(filesystem: pafs.FileSystem, pattern: str) -> list[pafs.FileInfo]:
    """Files of a filesystem whose path matches a glob of *, [...] and ** (any number of folders), sorted by path."""
    return [info for info in _matching(filesystem, pattern) if info.type == pafs.FileType.File]


def _names(one: LeftOut) -> str:
    return ", ".join(one.examples) + (", ..." if one.count > len(one.examples) else "")


def _reason(entry: _Entry, pattern: str) -> str:
    """Why an entry is not read; empty when it is."""
    if entry.reason or shown(entry.uri) != entry.uri:
        return entry.reason or NAME
    kind = file_type(bare(entry.uri))
    if kind is None:
        return NO_TYPE
    if kind[0] == "json" and file_type(bare(pattern)) != kind:
        return JSON
    return EMPTY if not entry.size and (kind[1] or kind[0] in TABLES) else ""


def _nothing(pattern: str, entries: list[_Entry], setting: str) -> Exception:
    if not entries:
        hint = "the address" if "://" in pattern else f"the path (relative ones start in {os.getcwd()})"
        return FileNotFoundError(f"{setting} has {shown(pattern)!r}, but nothing matches it; check {hint}")
    line = left_out_line(account((_reason(entry, pattern), entry.uri) for entry in entries))
    return ValueError(
        f"{setting} has {shown(pattern)!r}, but no file there can be read ({line}); the known types are {KNOWN_TYPES}: rename, convert "
        "or fetch the files again"
    )


def _entries(pattern: str) -> Iterator[_Entry]:
    pattern = local_path(pattern)
    if "://" in pattern:
        yield from _find_remote(pattern)
        return
    path = os.path.abspath(os.path.expanduser(pattern))
    if os.path.isdir(path):
        yield from _walk(path)
    elif os.path.lexists(path):
        yield _entry(path)
    elif _MAGIC.search(path):
        names = sorted(glob.glob(path, recursive=True))
        files = [name for name in names if not os.path.isdir(name)]
        places = {_place(name): name for name in sorted(files, key=lambda name: (-name.count("/"), name))}  # the shortest is kept
        yield from (_entry(name) if places[_place(name)] == name else _Entry(name, reason=TWICE) for name in files)
        yield from (_Entry(name, reason=FOLDER) for name in _without_files(filter(os.path.isdir, names), files))


def _place(path: str) -> str:
    """Where a file lies, whatever links its folder was reached by: ** follows those that lead back, again and again."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _entry(path: str) -> _Entry:
    if os.path.isfile(path):
        stat = os.stat(path)
        return _Entry(path, stat.st_size, stat.st_mtime_ns)
    return _Entry(path, reason=NO_FILE if os.path.exists(path) else NOWHERE)


def _walk(folder: str) -> Iterator[_Entry]:
    """What lies below a folder in sorted order, links followed once."""
    visited = set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_raised):
        real = os.path.realpath(place)
        if real in visited:
            folders.clear()
            yield _Entry(place, reason=AGAIN)
            continue
        visited.add(real)
        yield from (_Entry(os.path.join(place, name), reason=HIDDEN) for name in sorted(folders + names) if name.startswith("."))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (_entry(os.path.join(place, name)) for name in sorted(names) if not name.startswith("."))


def _raised(error: OSError) -> None:
    """A folder that may not be listed ends the search: os.walk passes over it otherwise."""
    raise error


def _without_files(folders: Iterable[str], files: Sequence[str]) -> Iterator[str]:
    """The folders below which the pattern matches no file: those of ** are on the way to files."""
    on_the_way = {place for name in files for place in _parents(name)}
    return (name for name in folders if name.rstrip("/") not in on_the_way)


def _parents(name: str) -> Iterator[str]:
    while (parent := os.path.dirname(name)) != name:
        yield parent
        name = parent


def _find_remote(uri: str) -> Iterator[_Entry]:
    filesystem, root = open_filesystem(uri)
    path = inside(uri, root)
    scheme, location, query = split_uri(uri)
    start = f"{scheme}://{location.partition('/')[0]}"

    def entry(info: pafs.FileInfo, reason: str = "") -> _Entry:
        return _Entry(f"{start}/{info.path[len(root) :].lstrip('/')}{query}", info.size or 0, info.mtime_ns or 0, reason)

    try:
        info = filesystem.get_file_info(path) if not _REMOTE_MAGIC.search(path) else None
        if info is not None and info.type == pafs.FileType.File:
            yield entry(info)
            return
        found = _matching(filesystem, path if info is None else path + "/**/*")
        files = [one for one in found if one.type == pafs.FileType.File]
        yield from map(entry, files)
        if info is None:
            folders = {one.path: one for one in found if one.type == pafs.FileType.Directory}
            yield from (entry(folders[name], FOLDER) for name in _without_files(folders, [one.path for one in files]))
        elif info.type == pafs.FileType.Directory:
            visible = {one.path for one in files}
            every = filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
            yield from (entry(one, HIDDEN) for one in every if one.type == pafs.FileType.File and one.path not in visible)
    except OSError as error:
        raise ValueError(
            f"data.paths has {uri!r}, but it cannot be listed ({error}); check the address, the credentials and the network"
        ) from error


def _matching(filesystem: pafs.FileSystem, pattern: str) -> list[pafs.FileInfo]:
    """What matches a glob, folders included, sorted by path."""
    parts = pattern.split("/")
    fixed = next(i for i, part in enumerate(parts) if _REMOTE_MAGIC.search(part))
    deep = fixed < len(parts) - 1 or parts[-1] == "**"
    selector = pafs.FileSelector("/".join(parts[:fixed]), allow_not_found=True, recursive=deep)
    wanted = re.compile("".join(_component(part, last=i == len(parts) - 1) for i, part in enumerate(parts)))
    infos = [info for info in filesystem.get_file_info(selector) if wanted.fullmatch(info.path)]
    return sorted(infos, key=lambda info: str(info.path))


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
