"""Byte ranges of text files against splitting the whole text in memory."""

import itertools
import re
import time
from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from elf_platform.data.text_ranges import UnreadableFile, cut, lines, paragraphs, text_of

TEXT = st.lists(st.sampled_from(["a", "é", "🎉", " ", "\t", "\n", "\n", "\n\n", "\r\n", "\ufefb\n"]), max_size=60).map("".join)
BOM = b"\xef\xbb\xbf"
LIMIT = 1 << 20


def ranges(size: int, parts: int) -> list[tuple[int, int]]:
    edges = [size * i // parts for i in range(parts + 1)]
    return list(itertools.pairwise(edges))


def documents(raw: bytes, *, parts: int = 1, limit: int = LIMIT, chunk: int = 1 << 20) -> list[str]:
    """Documents over all ranges, the pieces of one put together again."""
    found: list[bytes] = []
    for start, stop in ranges(len(raw), parts):
        for piece in paragraphs(pa.BufferReader(raw), start, stop, limit, chunk):
            assert raw[piece.offset : piece.offset + len(piece.content)] == piece.content
            assert len(piece.content) <= limit
            if piece.first:
                found.append(b"")
            found[-1] += piece.content
    return [document.decode().rstrip() for document in found if document.strip()]


def oracle(text: str) -> list[str]:
    """Runs of non-blank lines."""
    runs: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.strip(" \t\r"):
            runs[-1].append(line)
        elif runs[-1]:
            runs.append([])
    return ["\n".join(run).rstrip() for run in runs if run]


@given(text=TEXT, parts=st.integers(1, 9), chunk=st.integers(1, 17))
@example(text="a\n \na", parts=3, chunk=1)
@example(text="aaaa\n\n\n\naaaa\n\n", parts=9, chunk=2)
@example(text="\ufefb\naaaa", parts=2, chunk=17)  # a letter of whose bytes byte order marks are made as well
@settings(max_examples=400, deadline=None)
def test_every_document_belongs_to_exactly_one_range(text: str, parts: int, chunk: int) -> None:
    assert documents(text.encode(), parts=parts, chunk=chunk) == oracle(text)


@given(text=TEXT, parts=st.integers(1, 5), chunk=st.integers(1, 17), limit=st.integers(4, 24))
@example(text="word 🎉\na\t\r\n \t\nword", parts=1, chunk=1, limit=15)
@settings(max_examples=400, deadline=None)
def test_pieces_of_long_documents_join_to_the_document(text: str, parts: int, chunk: int, limit: int) -> None:
    assert documents(text.encode(), parts=parts, chunk=chunk, limit=limit) == oracle(text)


@given(text=TEXT, parts=st.integers(1, 9), chunk=st.integers(1, 17))
@settings(max_examples=300, deadline=None)
def test_every_line_belongs_to_exactly_one_range(text: str, parts: int, chunk: int) -> None:
    raw = text.encode()
    found = [line for start, stop in ranges(len(raw), parts) for line in lines(pa.BufferReader(raw), start, stop, chunk)]
    assert b"\n".join(line for _, line in found) == raw.replace(b"\r\n", b"\n").removesuffix(b"\n")
    assert all(raw[offset : offset + len(line)] == line for offset, line in found)


def test_pieces_are_cut_at_white_space_and_between_characters() -> None:
    assert cut(b"one two three", 9) == len(b"one two")
    assert cut(b"one\ntwo three", 7) == len(b"one")
    assert cut("ééééé".encode(), 5) == 4
    words = " ".join(f"word{i}" for i in range(300))
    pieces = [piece.content.decode() for piece in paragraphs(pa.BufferReader(words.encode()), 0, None, 100)]
    assert "".join(pieces) == words
    assert all(re.fullmatch(r"( ?word\d+)+", piece) for piece in pieces)


def test_a_long_document_is_read_in_chunks() -> None:
    class Counting:
        """A source of one endless line that says how far it was read."""

        given = 0

        def read(self, size: int) -> bytes:
            self.given += size
            return b"word " * (size // 5) if self.given < 10_000_000 else b""

    source = Counting()
    pieces = paragraphs(source, 0, None, 50_000, 10_000)
    next(pieces)
    assert source.given <= 70_000


def test_the_byte_order_mark_is_not_text() -> None:
    assert documents(b"\xef\xbb\xbfone\n\ntwo") == ["one", "two"]
    assert list(lines(pa.BufferReader(b"\xef\xbb\xbf{}\n"), 0, None)) == [(3, b"{}")]


@pytest.mark.parametrize(
    ("raw", "why"), [(b"text\0more", "NUL bytes"), ("häuser".encode("latin-1") * 9, "not UTF-8"), ("a".encode("utf-16"), "NUL")]
)
def test_what_is_not_text_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises(UnreadableFile, match=why):
        list(paragraphs(pa.BufferReader(raw), 0, None, LIMIT))
    with pytest.raises(UnreadableFile, match=why):
        list(lines(pa.BufferReader(raw), 0, None))


def test_a_character_on_the_border_of_the_first_block_is_no_error() -> None:
    raw = b"a" * 65535 + "é".encode() + b"b"
    assert documents(raw) == [raw.decode()]


def test_a_file_without_other_line_ends_has_lines_that_end_with_a_carriage_return() -> None:
    raw = b"one\rtwo\r\rthree\r"
    for parts in (1, 4):
        pieces = [piece for start, stop in ranges(len(raw), parts) for piece in paragraphs(pa.BufferReader(raw), start, stop, LIMIT, 2)]
        assert [piece.content for piece in pieces] == [b"one\ntwo", b"three"]
        found = [line for start, stop in ranges(len(raw), parts) for _, line in lines(pa.BufferReader(raw), start, stop, 3)]
        assert found == [b"one", b"two", b"", b"three"]
    assert [line for _, line in lines(pa.BufferReader(b"one\rtwo\nthree"), 0, None)] == [b"one\rtwo", b"three"]
    kept = "a\x0bb\x0cc\u2028d\x85".encode()
    assert [line for _, line in lines(pa.BufferReader(kept + b"\r\ne"), 0, None)] == [kept, b"e"]


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("parts", [1, 4])
def test_byte_order_marks_are_no_text_where_a_file_was_joined_to_another(ends: bytes, parts: int) -> None:
    file = BOM + b"one" + ends + b"two" + ends + ends + b"three" + ends
    raw = file + BOM + ends + file
    pieces = [piece for start, stop in ranges(len(raw), parts) for piece in paragraphs(pa.BufferReader(raw), start, stop, LIMIT)]
    texts = [text_of(piece.content).split() for piece in pieces]
    assert texts == [["one", "two"], ["three"], ["one", "two"], ["three"]]
    found = [line for start, stop in ranges(len(raw), parts) for _, line in lines(pa.BufferReader(raw), start, stop)]
    assert found == [b"one", b"two", b"", b"three", b"", b"one", b"two", b"", b"three"]


class Counted:
    """A file that counts the bytes that are read of it."""

    def __init__(self, raw: bytes) -> None:
        self.file, self.read_bytes = pa.BufferReader(raw), 0

    def read(self, size: int) -> bytes:
        block: bytes = self.file.read(size)
        self.read_bytes += len(block)
        return block

    def seek(self, place: int) -> object:
        return self.file.seek(place)


@pytest.mark.parametrize("raw", [b"one more line\n" * 500_000, b"word " * 1_400_000], ids=["no blank line", "one line"])
@pytest.mark.parametrize("read", [lambda *where: list(paragraphs(*where, LIMIT, 1 << 14)), lambda *where: list(lines(*where, 1 << 14))])
def test_a_document_over_many_ranges_is_read_about_twice_and_not_once_for_each(raw: bytes, read: Callable[..., list[object]]) -> None:
    source = Counted(raw)
    found = [item for start, stop in ranges(len(raw), 20) for item in read(source, start, stop)]
    assert found
    assert source.read_bytes < 2.5 * len(raw) + 20 * 4 * 65536


def test_a_long_line_costs_its_length_once() -> None:
    """A chunk is copied twice, however many came before it; joined as they came, these would take a minute."""
    raw = b"x" * 60_000_000
    began = time.monotonic()
    ((_, line),) = lines(pa.BufferReader(raw), 0, None, 1 << 12)
    assert line == raw
    assert time.monotonic() - began < 5


def test_a_long_run_of_blanks_costs_its_length_once() -> None:
    raw = b"one" + b" " * 16_000_000 + b"two\n" + b" " * 16_000_000 + b"\n\nthree"
    began = time.process_time()
    pieces = [piece.content.split() for piece in paragraphs(pa.BufferReader(raw), 0, None, LIMIT, 1 << 14)]
    assert [words for words in pieces if words] == [[b"one"], [b"two"], [b"three"]]
    assert time.process_time() - began < 4
