"""Documents and lines of byte ranges of text files: what begins in a range belongs to it and is read to its end.

A line ends with \\n or \\r\\n, and with \\r in a file whose first 64 KiB have no other line end; nothing else ends one, so that line i of
aligned files is line i of each. A line of blanks alone is blank, and blank lines separate paragraphs. Byte order marks are no text where a
line begins: there a file begins, or one that was joined to it.
"""

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from elf_platform.data.files import Compression, UnreadableFile, open_stream

_CHUNK = 1 << 20
_HEAD = 1 << 16  # bytes at the start of a range that decide whether it is text at all
_BLANKS = b" \t\r\f\v"
_BOM = b"\xef\xbb\xbf"
_BLANK_LINE = rb"(?:[ \t\r\f\v]|\xef\xbb\xbf)*+\n"
_SEPARATOR = re.compile(rb"\n(?:" + _BLANK_LINE + rb")+")
_BLANK_LINES = re.compile(rb"(?:" + _BLANK_LINE + rb")*")
_MARK = "\ufeff"
_LONGEST_LINE = 1 << 30  # bytes: a line is held in memory as a whole, and as JSON several times over


class Source(Protocol):
    """What is read: a `pyarrow.NativeFile`; a compressed one only from its beginning."""

    def read(self, size: int, /) -> bytes: ...

    def seek(self, place: int, /) -> object: ...


class Piece(NamedTuple):
    """Bytes of a document and where they lie; first and last tell whether the document begins and ends in them."""

    content: bytes
    offset: int
    first: bool
    last: bool


def text_of(content: bytes) -> str:
    """The text of a document or line, without byte order marks, which stand wherever files were joined. Raises UnicodeDecodeError."""
    return content.decode().replace(_MARK, "")


def paragraphs(source: Source, start: int, stop: int | None, limit: int, chunk: int = _CHUNK) -> Iterator[Piece]:
    """Documents (runs of lines between blank lines) that begin in start..stop, as pieces of at most ``limit`` bytes.

    Reads ``chunk`` bytes at a time and holds ``limit`` plus one chunk. A range in which nothing begins is read no further than its end.
    Raises UnreadableFile when the range begins with what is not UTF-8 text.
    """
    source, head = _with_line_ends(source, start)
    offset = _line_start(source, start, stop) if start else 0
    if offset is None:
        return
    skipping = start > 0 and not _blank_before(source, offset)
    if skipping:
        offset -= 1  # the line end before, so that a blank line here is seen as one
    buffer, continued, searched = b"", False, 0
    blocks = _blocks(source, head, offset, chunk)
    while True:
        blank_end = len(buffer) - searched  # kept and looked at again: read as much more, so that a long one is not looked at often
        more = b"".join(itertools.islice(blocks, max(1, blank_end // chunk)))
        buffer += more
        if offset == 0 and len(buffer) >= len(_BOM) and buffer.startswith(_BOM):
            buffer, offset = buffer[len(_BOM) :], len(_BOM)
        at = 0
        while True:
            if not (continued or skipping):
                blank = _BLANK_LINES.match(buffer, at)
                at = blank.end() if blank else at
                if stop is not None and offset + at >= stop:
                    return
            found = _SEPARATOR.search(buffer, max(at, searched))
            if found is None:
                break
            if not skipping:
                yield from _limited(buffer[at : found.start()], offset + at, not continued, limit)
            at, searched, continued, skipping = found.end(), 0, False, False
        buffer, offset = buffer[at:], offset + at
        if not more:
            if not skipping:
                yield from _limited(buffer.rstrip(), offset, not continued, limit)
            return
        # White space and marks at the end may be the beginning of a separator: they stay together.
        searched = len(buffer.rstrip(_BLANKS + b"\n" + _BOM))
        if skipping:
            buffer, offset, searched = buffer[searched:], offset + searched, 0
            if stop is not None and offset >= stop:
                return
        while searched > limit:
            end = cut(buffer, limit)
            yield Piece(buffer[:end], offset, not continued, False)
            buffer, offset, searched, continued = buffer[end:], offset + end, searched - end, True


def lines(source: Source, start: int, stop: int | None, chunk: int = _CHUNK) -> Iterator[tuple[int, bytes]]:
    """Offset and content of the lines that begin in start..stop, without line ends and byte order marks.

    Raises UnreadableFile as `paragraphs` does, and for a line of more than a gigabyte.
    """
    source, head = _with_line_ends(source, start)
    offset = _line_start(source, start, stop) if start else 0
    if offset is None:
        return
    kept: list[bytes] = []  # put together once, where the line ends
    held = 0
    for more in _blocks(source, head, offset, chunk):
        *ended, rest = more.split(b"\n")
        for piece in ended:
            if stop is not None and offset >= stop:
                return
            line = b"".join([*kept, piece])
            yield _without_mark(offset, line.removesuffix(b"\r"))
            offset += len(line) + 1
            kept, held = [], 0
        if stop is not None and offset >= stop:
            return
        kept.append(rest)
        held += len(rest)
        if held > _LONGEST_LINE:
            raise UnreadableFile(f"the line that begins at byte {offset} is longer than {_LONGEST_LINE >> 20} MiB; cut it")
    if held and (stop is None or offset < stop):
        yield _without_mark(offset, b"".join(kept).removesuffix(b"\r"))


def cut(raw: bytes, limit: int) -> int:
    """Where to cut UTF-8: before the last white space within the limit, or between characters where none is nearby."""
    end = max(raw.rfind(b"\n", limit // 2, limit), raw.rfind(b" ", limit // 2, limit))
    if end < 1:
        end = limit
        while end > 1 and raw[end] & 0xC0 == 0x80:
            end -= 1
    return end


def line_number(uri: str, compression: Compression, offset: int) -> int:
    """Line of a byte, from 1; reads the file once more up to there, which only errors pay for."""
    line = 1
    with open_stream(uri, compression) as file:
        source, head = _with_line_ends(file, 0)
        for block in _blocks(source, head, 0, _CHUNK):
            line += block[:offset].count(b"\n")
            offset -= len(block)
            if offset <= 0:
                break
    return line


class _CarriageReturns:
    """A file whose lines end with \\r, read as if they ended with \\n: no byte moves."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def read(self, size: int) -> bytes:
        return self._source.read(size).replace(b"\r", b"\n")

    def seek(self, place: int) -> object:
        return self._source.seek(place)


def _with_line_ends(source: Source, start: int) -> tuple[Source, bytes]:
    """The source with lines that end with \\n, and its first bytes, which have been read. Every range looks at the same bytes."""
    if start:
        source.seek(0)
    head = source.read(_HEAD)
    if b"\n" in head or b"\r" not in head[: _HEAD - 1]:  # a last one may be half of \r\n
        return source, head
    return _CarriageReturns(source), head.replace(b"\r", b"\n")


def _blocks(source: Source, head: bytes, offset: int, chunk: int) -> Iterator[bytes]:
    """The content from ``offset`` on, which is 0 or can be sought; ``head`` holds the first bytes. Raises UnreadableFile for no text."""
    if offset:
        source.seek(offset)
        head = source.read(_HEAD)
    _require_text(head)
    for begin in range(0, len(head), chunk):
        yield head[begin : begin + chunk]
    while more := source.read(chunk):
        yield more


def _without_mark(offset: int, line: bytes) -> tuple[int, bytes]:
    marks = 0
    while line.startswith(_BOM, marks):
        marks += len(_BOM)
    return offset + marks, line[marks:]


def pieces_of(content: bytes, limit: int) -> Iterator[tuple[int, bytes]]:
    """Begin and content of consecutive pieces of at most ``limit`` bytes of UTF-8, cut as ``cut`` says; none of nothing."""
    begin = 0
    while len(content) - begin > limit:
        end = begin + cut(content[begin : begin + limit + 1], limit)
        yield begin, content[begin:end]
        begin = end
    if begin < len(content):
        yield begin, content[begin:] if begin else content


def _limited(content: bytes, offset: int, first: bool, limit: int) -> Iterator[Piece]:
    for begin, piece in pieces_of(content, limit):
        yield Piece(piece, offset + begin, first and begin == 0, begin + len(piece) == len(content))


def _line_start(source: Source, offset: int, stop: int | None) -> int | None:
    """Start of the first line at or after ``offset``, None when there is none before ``stop``."""
    source.seek(offset - 1)
    place = offset - 1
    while (stop is None or place < stop) and (block := source.read(_HEAD)):
        found: int = block.find(b"\n")
        if found >= 0:
            return place + found + 1
        place += len(block)
    return None


def _blank_before(source: Source, offset: int) -> bool:
    """Whether the line that ends just before ``offset`` (a line start) is blank."""
    end, line = offset - 1, list[bytes]()
    while end > 0:
        begin = max(0, end - _HEAD)
        source.seek(begin)
        _, newline, piece = source.read(end - begin).rpartition(b"\n")
        if piece.strip(_BLANKS + _BOM):
            return False
        line.append(piece)
        if newline:
            break
        end = begin
    return bool(_BLANK_LINES.fullmatch(b"".join(reversed(line)) + b"\n"))  # other characters share bytes with a mark


def _require_text(block: bytes) -> None:
    head = block[:_HEAD]
    if b"\0" in head:
        raise UnreadableFile("it holds NUL bytes, so it is binary or UTF-16, but it should be UTF-8 text")
    try:
        head.decode()
    except UnicodeDecodeError as error:
        cut_inside_a_character = error.start >= len(head) - 4 and "end of data" in error.reason
        if not cut_inside_a_character:
            raise UnreadableFile(f"it is not UTF-8 (byte {error.start}: {error.reason}); convert it") from error
