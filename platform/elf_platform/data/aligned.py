"""Files of which line i belongs to text i: sources, references, and texts that are scored. Nothing is skipped, so that nothing shifts."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from elf_platform.data.files import READ_ERRORS, TABLES, FoundFile, is_damage
from elf_platform.data.parts import Asked, CorpusPart, check_columns, column_names, locate, table_schema, whole_part
from elf_platform.data.readers import ReadCounts, RefusedInput, read_documents, read_rows
from elf_platform.data.selection import select_one
from elf_platform.terminal import say

Value = str | list[str] | None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a file is asked for, by one part of the product."""

    what: str
    """What the file holds: sources."""
    setting: str
    """The option that names the file: --sources."""
    column_setting: str
    """The option that names its column."""
    defaults: tuple[str, ...]
    """Columns that are taken where none is named: the first that is there."""
    lists: bool
    """Values may be lists of strings."""
    remembered: str = ""
    """What the column was called in the pairs that the model learned from; it is taken where a file has it and none is named."""


def read_aligned(path: Path | str, column: str, wanted: Wanted) -> list[Value]:
    """The column's value in every line, row or record of a file, in order: text, null (a blank line too), or a list of strings.

    A .txt without a ``column`` gives its lines, with one it is tab-separated. Raises FileNotFoundError without the file, and ValueError,
    naming the file and the line, for what is not text."""
    file = select_one(str(path), what=wanted.what, setting=wanted.setting)
    values = values_of(file, column, wanted)
    if not values:
        raise ValueError(f"{file.uri} is empty: it holds no {wanted.what}; write one in each line")
    return values


def values_of(file: FoundFile, column: str, wanted: Wanted) -> list[Value]:
    """``read_aligned`` of a file that was found, and which may be empty."""
    with _nothing_skipped(file, wanted):
        part = _part(file, column, wanted)
        return [value for (value,) in read_rows(part, strict=True, counts=ReadCounts(), blanks=True)]


def paragraphs_of(file: FoundFile, wanted: Wanted) -> list[str]:
    """The paragraphs of a .txt. Raises as ``read_aligned`` does."""
    part = whole_part(file, Asked(columns=("text",), settings=(wanted.column_setting,)))
    with _nothing_skipped(file, wanted):
        return list(read_documents(part, strict=True, counts=ReadCounts()))


def as_text(value: Value) -> str:
    """The text that a value stands for: null an empty one, a list its sentences."""
    return " ".join(value) if isinstance(value, list) else value or ""


def as_references(value: Value) -> list[str]:
    """The references that a value stands for: those of a list, and an empty one where there is nothing."""
    return (value or [""]) if isinstance(value, list) else [value or ""]


@contextlib.contextmanager
def _nothing_skipped(file: FoundFile, wanted: Wanted) -> Iterator[None]:
    """Errors of reading as one sentence with the file, the line where there is one, and what to do."""
    try:
        yield
    except RefusedInput as error:
        raise ValueError(
            f"{error.what}; mend it, or name another column with {wanted.column_setting}: no line of {wanted.what} is left out, because "
            "each belongs to one text"
        ) from error
    except READ_ERRORS as error:
        if not is_damage(error):
            raise
        raise ValueError(f"{file.uri} cannot be read as {file.format}: {error}; fetch or write it again") from error


def _part(file: FoundFile, column: str, wanted: Wanted) -> CorpusPart:
    """The whole file with its column found. Raises ValueError where it has none of that name, or one that holds no text."""
    column = column or _remembered(file, wanted)
    asked = _asked(column or wanted.defaults[0], wanted, txt="tsv" if column else "lines")
    part = whole_part(file, asked)
    if not column and part.format != "lines":
        names = column_names(part)
        asked = _asked(next((name for name in wanted.defaults if name in names), wanted.defaults[0]), wanted, txt="lines")
        part = replace(part, text_column=asked.columns[0])
    if part.format in ("tsv", "csv"):
        return locate(part, asked)
    if part.format in TABLES:
        check_columns(table_schema(part), part.uri, asked)
    return part


def _remembered(file: FoundFile, wanted: Wanted) -> str:
    """The remembered column where the file has it, with a notice; a .txt has columns when its first line has a tab."""
    name = wanted.remembered
    if not name:
        return ""
    part = whole_part(file, _asked(name, wanted, txt="tsv"))
    names = column_names(part)
    if name.isdecimal():
        there = part.format in ("tsv", "csv") and int(name) <= len(names) and not set(names) & set(wanted.defaults)
    else:
        there = name in names or name.partition(".")[0] in names
    if not there or (file.format == "txt" and len(names) < 2):
        return ""
    say(f"{wanted.what} are the column {name} of {file.uri}, as in training; {wanted.column_setting} names another")
    return name


def _asked(column: str, wanted: Wanted, txt: Literal["lines", "tsv"]) -> Asked:
    return Asked(columns=(column,), settings=(wanted.column_setting,), lists=wanted.lists, txt=txt)
