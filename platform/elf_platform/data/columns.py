"""Columns by name in records, tables and separated lines, and what their values may be.

a.b is the field b of the column a, unless a column is called a.b. A value is text, null, or, where lists may be, a list of strings;
numbers, truth values, objects and lists of other things are never taken for text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from elf.data.tokenizer import well_formed


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the columns of a file of separated lines lie."""

    places: tuple[int, ...]
    """Fields of a line, from 0, in the order in which the columns were asked for."""
    header: int
    """How many names the first line holds; 0 where it holds none."""


def find_value(record: Mapping[str, Any], name: str) -> Any:
    """The value of a JSON record, texts and lists of texts well-formed; null where the object that should hold it is null.

    Raises KeyError when it has none."""
    if name in record or "." not in name:
        value = record[name]
        if isinstance(value, list):
            return [well_formed(item) if isinstance(item, str) else item for item in value]
        return well_formed(value) if isinstance(value, str) else value
    outer, _, inner = name.partition(".")
    value = record[outer]
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise KeyError(name)
    return find_value(value, inner)


def find_type(schema: pa.Schema, name: str) -> pa.DataType:
    """The type of a column. Raises KeyError when there is none, ValueError when there are several of that name."""
    outer, *inner = [name] if name in schema.names else name.split(".")
    if outer not in schema.names:
        raise KeyError(name)
    if schema.names.count(outer) > 1:
        raise ValueError(f"has {schema.names.count(outer)} columns called {outer!r}, so that none can be meant; rename all but one")
    kind = schema.field(outer).type
    for step in inner:
        if not pa.types.is_struct(kind) or kind.get_field_index(step) < 0:
            raise KeyError(name)
        kind = kind.field(step).type
    return kind


def top_level(schema: pa.Schema, names: Sequence[str]) -> list[str]:
    """The columns to read for these names, each once, in the file's order."""
    wanted = {name if name in schema.names else name.split(".")[0] for name in names}
    return [name for name in schema.names if name in wanted]


def find_column(batch: pa.RecordBatch | pa.Table, name: str) -> pa.Array | pa.ChunkedArray:
    """The values of a column."""
    outer, *inner = [name] if name in batch.schema.names else name.split(".")
    column = batch.column(outer)
    return pc.struct_field(column, inner) if inner else column


def find_places(fields: Sequence[str], names: Sequence[str]) -> Places:
    """Where columns lie, by the fields of the first line: numbers from 1 for a file without names, else names.

    Raises ValueError, saying what there is, when a column is not there, is there twice, or numbers and names are mixed.
    """
    numbers = [name.isdecimal() for name in names]
    if all(numbers):
        missing = [name for name in names if not 1 <= int(name) <= len(fields)]
        if missing:
            raise ValueError(f"has no column {', '.join(missing)}: its first line has {len(fields)} column(s)")
        return Places(places=tuple(int(name) - 1 for name in names), header=0)
    if any(numbers):
        raise ValueError(f"has columns with or without names, but {' and '.join(names)} mix both; give names, or numbers from 1")
    missing = [name for name in names if name not in fields]
    if missing:
        raise ValueError(
            f"has no column {', '.join(map(repr, missing))}; its first line names {', '.join(fields)[:200]}: use those, or numbers from 1 "
            "where the first line is text itself"
        )
    twice = [name for name in names if fields.count(name) > 1]
    if twice:
        raise ValueError(f"has {fields.count(twice[0])} columns called {twice[0]!r}, so that none can be meant; rename all but one")
    return Places(places=tuple(fields.index(name) for name in names), header=len(fields))


def holds_text(value: object, *, lists: bool) -> bool:
    """Whether the value of a record is text, nothing, or (``lists``) a list of texts."""
    if lists and isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return value is None or isinstance(value, str)


class Twice:
    """Stands for the value of a key that a JSON object holds more than once, so that none can be meant."""


def as_record(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object from its keys and values (``object_pairs_hook``); plain JSON readers keep the last of equal keys without a word."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        record |= {name: Twice() for name in record if names.count(name) > 1}
    return record


def kind_of(value: object) -> str:
    """What a value that is no text is called in an error."""
    if isinstance(value, Twice):
        return "key twice"
    if isinstance(value, list):
        return "list" if all(isinstance(item, str) for item in value) else "list of other things than strings"
    return type(value).__name__


def is_text(kind: pa.DataType, *, lists: bool) -> bool:
    """Whether values of this type are text, or null all of them, or (``lists``) lists of text."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if lists and (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return is_text(kind.value_type, lists=False)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind))
