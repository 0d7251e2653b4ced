"""Documents and lines of byte ranges of text files: what begins in a range belongs to it and is read to its end."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from elf_platform.data.files import Compression, open_stream

_CHUNK = 1 << 20
_HEAD = 1 << 16  # bytes at the start of a range that decide whether it is text at all
_BLANKS = b" \t\r\f\v"
_BOM = b"\xef\xbb\xbf"
_SEPARATOR = re.compile(rb"\n(?:[ \t\r\f\v]*\n)+")
_BLANK_LINES = re.compile(rb"(?:[ \t\r\f\v]*\n)*")


class UnreadableFile(Exception):
    """A file that does not hold what its name says."""


class Piece(NamedTuple):
    """Bytes of a document and where they lie; first and last tell whether the document begins and ends in them."""

    content: bytes
    offset: int
    first: bool
    last: bool


def paragraphs(source: pa.NativeFile, start: int, stop: int | None, limit: int, chunk: int = _CHUNK) -> Iterator[Piece]:
    """Documents (runs of lines between blank lines) that begin in start..stop, as pieces of at most ``limit`` bytes.

    Reads ``chunk`` bytes at a time and holds ``limit`` plus one chunk. Raises UnreadableFile when the range begins with what is not
    UTF-8 text.
    """
    offset = _line_start(source, start) if start else 0
    if offset is None:
        return
    skipping = start > 0 and not _blank_before(source, offset)
    if skipping:
        offset -= 1  # the line end before, so that a blank line here is seen as one
    if start:
        source.seek(offset)
    buffer, continued, searched, head = b"", False, 0, True
    while True:
        more = source.read(chunk)
        buffer += more
        if head:
            head = False
            _require_text(buffer)
            if offset == 0 and buffer.startswith(_BOM):
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
        searched = len(buffer.rstrip())  # white space at the end may be the beginning of a separator: it stays together
        if skipping:
            buffer, offset, searched = buffer[searched:], offset + searched, 0
        while searched > limit:
            end = cut(buffer, limit)
            yield Piece(buffer[:end], offset, not continued, False)
            buffer, offset, searched, continued = buffer[end:], offset + end, searched - end, True


def lines(source: pa.NativeFile, start: int, stop: int | None, chunk: int = _CHUNK) -> Iterator[tuple[int, bytes]]:
    """Offset and content of the lines that begin in start..stop, line ends left out. Raises UnreadableFile as `paragraphs` does."""
    offset = _line_start(source, start) if start else 0
    if offset is None:
        return
    if start:
        source.seek(offset)
    kept, head = b"", True
    while more := source.read(chunk):
        if head:
            head = False
            _require_text(more)
            if offset == 0 and more.startswith(_BOM):
                more, offset = more[len(_BOM) :], len(_BOM)
        complete = (kept + more).split(b"\n")
        kept = complete.pop()
        for line in complete:
            if stop is not None and offset >= stop:
                return
            yield offset, line
            offset += len(line) + 1
    if kept and (stop is None or offset < stop):
        yield offset, kept


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
    with open_stream(uri, compression) as source:
        while offset > 0 and (block := source.read(min(_CHUNK, offset))):
            line += block.count(b"\n")
            offset -= len(block)
    return line


def _limited(content: bytes, offset: int, first: bool, limit: int) -> Iterator[Piece]:
    while len(content) > limit:
        end = cut(content, limit)
        yield Piece(content[:end], offset, first, False)
        content, offset, first = content[end:], offset + end, False
    if content:
        yield Piece(content, offset, first, True)


def _line_start(source: pa.NativeFile, offset: int) -> int | None:
    """Start of the first line at or after ``offset``, None when the line before never ends."""
    source.seek(offset - 1)
    place = offset - 1
    while block := source.read(_HEAD):
        found: int = block.find(b"\n")
        if found >= 0:
            return place + found + 1
        place += len(block)
    return None


def _blank_before(source: pa.NativeFile, offset: int) -> bool:
    """Whether the line that ends just before ``offset`` (a line start) is blank."""
    end = offset - 1
    while end > 0:
        begin = max(0, end - _HEAD)
        source.seek(begin)
        left = source.read(end - begin).rstrip(_BLANKS)
        if left:
            return bool(left.endswith(b"\n"))
        end = begin
    return True


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
