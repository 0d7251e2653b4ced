"""Sources of conditional models and prefixes of autoregressive ones: read, tokenised and cut, one for each line, never a shift."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from elf.data.tokenizer import Tokenizer, normalise, well_formed
from elf_platform.data.aligned import Wanted, as_text, read_aligned

_WANTED = Wanted(what="sources", setting="--sources", column_setting="--source_column", defaults=("source",), lists=True)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source: its text as given, and the tokens that the model sees; no tokens: its samples are empty."""

    text: str
    tokens: tuple[int, ...]
    truncated: bool = False


def read_sources(path: Path, column: str = "", *, remembered: str = "") -> list[str]:
    """Source texts of a file in any of the formats that data are prepared from, one for each line, row or record.

    column: by its name, or by its number from 1 in .tsv and .csv without names; empty for ``remembered``, that of the model's pairs, where
    the file has it, else "source", and for whole lines of .txt. An empty line and null are an empty source, a list is its sentences.
    Raises FileNotFoundError without the file, ValueError for what cannot be read, naming the line."""
    return [as_text(value) for value in read_aligned(path, column, replace(_WANTED, remembered=remembered))]


def encode_sources(texts: Sequence[str], tokenizer: Tokenizer, *, limit: int, strict: bool, where: str) -> list[Source]:
    """Sources of at most ``limit`` tokens each, normalised as prepared data is; longer ones are cut at the end.

    Raises ValueError under ``strict`` for one that is longer, naming its number and ``where``."""
    texts = [well_formed(text) for text in texts]  # of Python callers: files are read so
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
