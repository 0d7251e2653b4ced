"""From a part of the corpus to its documents, as a stream."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from elf_platform.data.corpora import CorpusPart


@dataclass(kw_only=True)
class ReadCounts:
    """What reading met; the reader adds to it while the documents are drawn."""

    documents: int = 0
    """Documents yielded; one that was cut into pieces counts once."""
    bytes: int = 0
    """UTF-8 bytes of the text yielded."""
    skipped_files: int = 0
    """Files (or the rest of one) that could not be read: binary, wrongly encoded, corrupt."""
    skipped_lines: int = 0
    """Lines or documents inside a readable file that could not be read."""
    empty_documents: int = 0
    split_documents: int = 0
    """Documents above the size limit, yielded in consecutive pieces."""
    messages: list[str] = field(default_factory=list)
    """A few examples, "file:line why"."""


def read_documents(part: CorpusPart, *, strict: bool, counts: ReadCounts) -> Iterator[str]:
    """Documents of one part, in file order."""
    raise AssertionError("being written")
    yield ""
