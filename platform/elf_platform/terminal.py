"""What the user reads: text stays text, a terminal that cannot show a character shows another, and a reader that goes ends nothing."""

import codecs
import os
import re
import select
import shutil
import sys
from typing import IO, Any

from rich.console import Console
from rich.progress import TextColumn
from rich.text import Text

NARROWEST = 40
"""Columns that are written to narrower terminals as well, which wrap them: help and tables of one column never end."""

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Terminal(Console):
    """A console to which names, paths and samples are nothing but text: ``[red]`` and ``:smile:`` come out as they are."""

    def __init__(self, file: IO[str] | None = None, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(file=file, stderr=stderr, width=width, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text of a line or cell; its control characters have no effect."""
        return super().render_str(harmless(text), **options)

    def on_broken_pipe(self) -> None:
        """The work goes on when nobody reads any more what it says."""
        _discard(self.file)


def harmless(text: str) -> str:
    """Text as it may be shown: control characters but newline and tab, which could colour, hide or overwrite what is there, as \\x1b.

    Models, files and names can hold any; what is written to files keeps them."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(text: str) -> None:
    """One line, or several, for the user: on standard error, apart from a job's output."""
    Terminal(stderr=True).print(text)


class Words(TextColumn):
    """A column of a progress bar that shows text as it is. ``form`` is a format string with the fields of ``task``."""

    def __init__(self, form: str) -> None:
        super().__init__(form, markup=False)


def open_streams() -> None:
    """Standard output and error take any text: terminals what they can show, files and pipes UTF-8. A very narrow terminal counts as a
    wider one."""
    codecs.register_error("elf_shown", _replace)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="elf_shown")
    if shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)


def flush_streams() -> None:
    """Writes out what is left; a reader that has gone, as ``head`` does, misses it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            _discard(stream)


def reader_gone() -> bool:
    """Whether nobody reads standard output or error any more."""
    watch = select.poll()
    for stream in (sys.stdout, sys.stderr):
        watch.register(stream.fileno(), 0)  # an error is told unasked
    return any(state & select.POLLERR for _, state in watch.poll(0))


def _discard(stream: Any) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _replace(error: UnicodeError) -> tuple[bytes, int]:
    """The bytes of a name that is not UTF-8 as they are, so that a command with it can be pasted; a question mark for anything else."""
    assert isinstance(error, UnicodeEncodeError)
    left = error.object[error.start : error.end]
    return b"".join(bytes([ord(char) - 0xDC00]) if 0xDC80 <= ord(char) <= 0xDCFF else b"?" for char in left), error.end
