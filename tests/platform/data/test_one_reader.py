"""Every reader gives the same texts of the same rows, whatever the format, or refuses with the file and the line.

Rows of a source and a text are written in a drawn format; what preparation (plain and pairs), sampling and evaluation make of them is
compared with what the rows hold, by the meanings of docs/data.md.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elf.data.tokenizer import normalise
from elf_platform.config import DataConfig
from elf_platform.data.corpora import resolve
from elf_platform.data.pairs import part_pairs
from elf_platform.data.readers import ReadCounts, read_documents
from elf_platform.evaluate.texts import read_references, read_texts
from elf_platform.sampling.sources import read_sources

LINES, JSON, TYPED = ("txt", "tsv", "csv"), ("jsonl", "ndjson", "json"), ("parquet", "arrow")
Rows = Sequence[tuple[Any, Any]]

WORDS = st.sampled_from(["lake", "Haus", "é", "книга", "湖", "😀", '"quoted"', "a,b", "3", "null", "[1]", "{}", "it's"])
TEXT = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)
LISTS = st.lists(TEXT, max_size=3)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXT, "some": st.one_of(st.none(), st.just(""), TEXT), "null": st.none(), "lists": st.one_of(st.none(), LISTS),
    "number": st.integers(0, 9), "bool": st.booleans(), "object": st.fixed_dictionaries({"x": TEXT}),
}
ANY = st.one_of(*KINDS.values(), st.lists(st.integers(0, 9), min_size=1, max_size=2), st.floats(0, 1))


@dataclass(frozen=True)
class Case:
    """A file to be written."""

    format: str
    ending: str
    headed: bool
    nested: bool
    rows: Rows
    blanks: frozenset[int]
    """Before these rows stands a blank line."""

    @property
    def columns(self) -> tuple[str, str]:
        """Names of source and text for the readers."""
        if self.nested:
            return "pair.src", "pair.text"
        return ("src", "text") if self.headed else ("1", "2")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    format = draw(st.sampled_from(LINES + JSON + TYPED))
    ending = format + draw(st.sampled_from(["", ".gz", ".zst", ".bz2", ".xz"]))
    if format in LINES:
        side = KINDS["some"]
        if format == "csv":
            side = st.one_of(side, st.tuples(TEXT, TEXT).map("\n".join))
        sides = (side, side)
    elif format in TYPED:
        sides = tuple(KINDS[draw(st.sampled_from(sorted(KINDS)))] for _ in range(2))
    else:
        sides = tuple(draw(st.sampled_from([KINDS["some"], KINDS["null"], KINDS["lists"], ANY])) for _ in range(2))
    rows = draw(st.lists(st.tuples(*sides), min_size=1, max_size=5))
    blanks = draw(st.frozensets(st.integers(0, 4), max_size=2)) if format not in (*TYPED, "json") else frozenset()
    return Case(
        format=format, ending=ending.upper() if draw(st.booleans()) else ending, rows=rows, blanks=blanks,
        headed=format not in LINES or (format != "txt" and draw(st.booleans())), nested=format not in LINES and draw(st.booleans()),
    )


def write(case: Case, path: Path) -> list[int]:
    """The file; returns the line (of a table or array: the number) of each row, from 1."""
    if case.format in TYPED:
        raw, places = table(case), list(range(1, len(case.rows) + 1))
    elif case.format == "json":
        raw, places = json.dumps([record(case, row) for row in case.rows], indent=1).encode(), list(range(1, len(case.rows) + 1))
    else:
        raw, places = text_lines(case)
    packed: Callable[[bytes], bytes] = {
        "gz": lambda raw: gzip.compress(raw) + bytes(7), "zst": lambda raw: bytes(pa.compress(raw, "zstd", asbytes=True)),
        "bz2": bz2.compress, "xz": lzma.compress,
    }.get(case.ending.lower().rpartition(".")[2], bytes)
    path.write_bytes(packed(raw))
    return places


def record(case: Case, row: tuple[Any, Any]) -> dict[str, Any]:
    pair = dict(zip(("src", "text"), row, strict=True))
    if case.nested:
        return {"id": 1, "pair": pair if any(value is not None for value in row) else None}
    return {"id": 1} | pair


def text_lines(case: Case) -> tuple[bytes, list[int]]:
    out = io.StringIO()
    places = []
    writer = csv.writer(out, lineterminator="\n")

    def put(fields: Sequence[Any]) -> None:
        if case.format == "csv":
            writer.writerow(["" if field is None else field for field in fields])
        else:
            out.write("\t".join(field or "" for field in fields) + "\n")

    if case.headed and case.format in LINES:
        put(("src", "text", "note"))
    for number, row in enumerate(case.rows):
        if number in case.blanks:
            out.write("\n")
        places.append(out.getvalue().count("\n") + 1)
        if case.format in LINES:
            put((*row, "note"))
        else:
            out.write(json.dumps(record(case, row)) + "\n")
    return out.getvalue().encode(), places


def table(case: Case) -> bytes:
    columns = [pa.array([row[i] for row in case.rows]) for i in range(2)]
    names = ["src", "text"]
    if case.nested:
        nothing = pa.array([all(value is None for value in row) for row in case.rows])
        columns, names = [pa.StructArray.from_arrays(columns, names, mask=nothing)], ["pair"]
    made = pa.table(columns, names)
    sink = io.BytesIO()
    if case.format == "parquet":
        pq.write_table(made, sink)
    else:
        with pa.ipc.new_file(sink, made.schema) as writer:
            writer.write_table(made)
    return sink.getvalue()


def is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def may_be_list(value: Any) -> bool:
    return is_text(value) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def with_blanks(case: Case, values: Sequence[Any]) -> list[Any]:
    """The values of all lines: null for a blank one."""
    return [one for number, value in enumerate(values) for one in ([None, value] if number in case.blanks else [value])]


def outcome(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except ValueError as error:
        return error


def check(found: Any, expected: Any, good: Sequence[bool], path: Path, places: Sequence[int]) -> None:
    """``found`` is what was expected where all rows are good, else one paragraph with the file and the line of the first bad row."""
    if all(good):
        assert found == expected
        return
    assert isinstance(found, ValueError), f"{found} was read, but row {good.index(False) + 1} is no text"
    message = str(found)
    assert "\n" not in message and str(path) in message
    if ", not text" in message:  # the head of the file, or a table's types, told it
        assert "set " in message
        return
    assert any(f"{path}{word}{places[good.index(False)]} " in message for word in (":", ", row ", ", record ")), message


def documents(config: DataConfig, counts: ReadCounts, strict: bool) -> Iterator[str]:
    for part in resolve(config).parts:
        yield from read_documents(part, strict=strict, counts=counts)


@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_all_readers_agree_or_refuse(case: Case, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("one") / f"rows.{case.ending}"
    places = write(case, path)
    source_column, text_column = case.columns
    sources, texts = ([row[i] for row in case.rows] for i in range(2))

    check(
        outcome(lambda: read_sources(path, source_column)),
        [source_of(value) for value in with_blanks(case, sources)],
        [may_be_list(value) for value in sources], path, places,
    )
    check(
        outcome(lambda: read_references(path, text_column)),
        [(value or [""]) if isinstance(value, list) else [value or ""] for value in with_blanks(case, texts)],
        [may_be_list(value) for value in texts], path, places,
    )
    plain = [value or "" for value in with_blanks(case, texts)] if all(map(is_text, texts)) else []
    check(outcome(lambda: read_texts(path, column=text_column).texts), plain, list(map(is_text, texts)), path, places)

    one = DataConfig(paths=(str(path),), text_column=text_column)
    check(
        outcome(lambda: list(documents(one, ReadCounts(), strict=True))), [text for text in plain if text],
        list(map(is_text, texts)), path, places,
    )
    counts = ReadCounts()
    kept = outcome(lambda: list(documents(one, counts, strict=False)))
    if not isinstance(kept, ValueError):
        assert kept == [text for text in texts if isinstance(text, str) and text]
        assert counts.documents + counts.empty_documents + counts.skipped_lines == len(texts)
        assert counts.skipped_lines == sum(not is_text(text) for text in texts)

    pairs = DataConfig(paths=(str(path),), text_column=text_column, source_column=source_column, source_length=8, packing="document")
    check(
        outcome(lambda: [pair for part in resolve(pairs).parts for pair in part_pairs(part, strict=True, counts=ReadCounts())]),
        [(clean(source_of(s)), clean((t or [""])[0] if isinstance(t, list) else t)) for s, t in case.rows],
        [may_be_list(s) and may_be_list(t) for s, t in case.rows], path, places,
    )


def source_of(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value or ""


def clean(text: Any) -> str:
    return normalise(str(text or "")).strip()
