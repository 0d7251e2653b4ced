"""Where the text lies and how it is cut into parts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from elf_platform.config import DataConfig

Format = Literal["txt", "jsonl", "parquet", "arrow", "builtin", "hub"]


@dataclass(frozen=True, kw_only=True)
class CorpusPart:
    """What one task reads; about `data.shard_mb` megabytes."""

    index: int
    uri: str
    format: Format
    text_column: str = "text"
    start: int | None = None
    stop: int | None = None
    size: int = 0
    compression: Literal["", "gzip", "zstd"] = ""
    version: str = ""
    rest: tuple["CorpusPart", ...] = ()


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The parts in their fixed order."""

    name: str
    parts: tuple[CorpusPart, ...]
    fingerprint: str


def resolve(config: "DataConfig") -> Corpus:
    """Find the files of `config.paths` and cut them into parts."""
    raise AssertionError("being written")
