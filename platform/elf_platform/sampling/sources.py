"""Sources of conditional models and prefixes of autoregressive ones: read, tokenised and cut, one for each line, never a shift."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from elf.data.tokenizer import Tokenizer, normalise, well_formed
from elf_platform.data.columns import find_tabs

JSON_LINES = (".jsonl", ".json")
"""Endings of files that hold one JSON object a line."""
OTHER_FILES = (".parquet", ".arrow", ".gz", ".zst")
"""Endings of files that data are prepared from, but whose lines are no sources."""
COLUMN = "source"
"""Name of the sources' column where none is given."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source: its text as given, and the tokens that the model sees; no tokens: its samples are empty."""

    text: str
    tokens: tuple[int, ...]
    truncated: bool = False


def text_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, empty ones included, without a byte order mark.

    Only \\n and \\r\\n end a line, not the separators that may stand within a text (U+2028, \\v), so that line i of sources, samples and
    references is line i of all. Raises ValueError for what is not UTF-8."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); convert it, for example with iconv") from error
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def read_sources(path: Path, column: str = "") -> list[str]:
    """Source texts of a UTF-8 file, one for each line: the line itself; the string under ``column`` of .jsonl; or the column of
    tab-separated lines (.tsv, and .txt with a ``column``), by the name that the first line gives it or by its number from 1, as in data.

    column: empty for "source". An empty line is an empty source. Raises FileNotFoundError without the file, ValueError for what cannot be
    read, naming the line."""
    path = path.expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there are no sources at {path}: no such file; give a .txt, .jsonl or .tsv file with one source a line")
    if path.suffix in OTHER_FILES:
        raise ValueError(f"{path} is a {path.suffix} file; sources are read from .txt, .jsonl or .tsv with one source a line: convert it")
    lines = text_lines(path)
    if not lines:
        raise ValueError(f"{path} is empty: there is nothing to sample for; write one source a line")
    if path.suffix in JSON_LINES:
        return [_of_json(line, column or COLUMN, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
    return _of_tabs(lines, column or COLUMN, path) if path.suffix == ".tsv" or column else lines


def encode_sources(texts: Sequence[str], tokenizer: Tokenizer, *, limit: int, strict: bool, where: str) -> list[Source]:
    """Sources of at most ``limit`` tokens each, normalised as prepared data is; longer ones are cut at the end.

    Raises ValueError under ``strict`` for one that is longer, naming its number and ``where``."""
    clean = [normalise(text).strip() for text in texts]
    sources = []
    for number, (text, ids) in enumerate(zip(texts, tokenizer.encode_batch(clean), strict=True), start=1):
        if strict and len(ids) > limit:
            raise ValueError(
                f"{where}: source {number} has {len(ids)} tokens, but the model takes at most {limit}, and --strict refuses to cut; "
                "shorten it, or leave --strict away to have it cut and counted"
            )
        sources.append(Source(text=text, tokens=tuple(ids[:limit]), truncated=len(ids) > limit))
    return sources


def digest(texts: Sequence[str]) -> str:
    """SHA-256 of source texts in order."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def _of_json(line: str, column: str, where: str) -> str:
    if not line.strip():
        return ""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON ({error}); mend or remove it") from error
    if not isinstance(row, dict) or column not in row:
        known = ", ".join(row) if isinstance(row, dict) else "no names, as it is no object"
        raise ValueError(f"{where} has no {column!r}: it has {known}; name the right one with --source_column")
    if not isinstance(row[column], str):
        raise ValueError(f"{where} has {type(row[column]).__name__} under {column!r}, but a source is a string; mend it")
    return well_formed(row[column])


def _of_tabs(lines: Sequence[str], column: str, path: Path) -> list[str]:
    try:
        tabs = find_tabs(lines[0], [column])
    except ValueError as error:
        raise ValueError(f"{path} {error} (--source_column)") from error
    (place,), first = tabs.places, 1 if tabs.header else 0
    if not lines[first:]:
        raise ValueError(f"{path} holds names and no lines: there is nothing to sample for; write one source a line")
    sources = []
    for number, line in enumerate(lines[first:], start=first + 1):
        fields = line.split("\t")
        if line.strip() and len(fields) <= place:
            raise ValueError(f"{path}, line {number} has {len(fields)} tab-separated column(s); {column!r} is number {place + 1}")
        sources.append(fields[place] if line.strip() else "")
    return sources
