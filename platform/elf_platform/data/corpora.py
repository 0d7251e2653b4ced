"""Where the text lies and how it is cut into parts: the plan that preparation spreads over workers.

The parts depend on the files and the settings alone, never on the number of workers; each document belongs to exactly one part,
the one in which its first byte lies.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from elf_platform.data import builtin, hub_dataset
from elf_platform.data.content import ContentHashes
from elf_platform.data.files import bare
from elf_platform.data.parts import Asked, CorpusPart, check_columns, inspect_file, part_for, ranges, whole_part
from elf_platform.data.selection import LeftOut, left_out_line, select

if TYPE_CHECKING:
    from elf_platform.config import DataConfig

_MEGABYTE = 1_000_000
_PARTS = 32  # cut a corpus into about this many parts at least ...
_SMALLEST_PART = 4 * 1024 * 1024  # ... unless they became smaller than this, where starting a task costs more than it does
_NO_PAIRS = (
    "data.source_column asks for pairs of source and target, but data.paths names no files, and the built-in corpus holds none; give the "
    "files, such as the sentence pairs of Tatoeba (a .txt of English, German and attribution in each line, from manythings.org/anki: "
    "data.source_column 2, data.text_column 1) or the abstracts and summaries of SciTLDR (.jsonl, from github.com/allenai/scitldr)"
)
_WAYS_OUT = (
    "mend, convert or remove what is left out, name the files alone that are to be read in data.paths (such as FOLDER/*.jsonl), or drop "
    "data.strict to leave the rest out with a count"
)
_SETTINGS = ("data.source_column", "data.text_column")
_INSPECTORS = 8  # files looked into at once: nearly all waiting where they are remote


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The parts in their fixed order; the fingerprint changes with what a file holds, the order of the files, a setting of the cut or a
    package, and not with where the files lie, what they are called or when they were written."""

    name: str
    parts: tuple[CorpusPart, ...]
    fingerprint: str
    left_out: tuple[LeftOut, ...] = ()
    """What the paths name and nobody reads."""
    sources: tuple[tuple[str, str], ...] = ()
    """Name below the folder that all have in common, and SHA-256, of each file in order."""


def resolve(config: "DataConfig", hashes: ContentHashes | None = None) -> Corpus:
    """Find what `config.paths` names and cut it into parts; looks into every file's head, so a wrong column is found here, and then
    reads all of it for its hash, but for what ``hashes`` remembers.

    Raises FileNotFoundError when a path is missing, and ValueError when a path holds no text of a known type, a file has no such
    column, the corpus is empty, or (strict) a file is corrupt.
    """
    if config.shard_mb <= 0:
        raise ValueError(f"data.shard_mb is {config.shard_mb}, but must be above 0; 64 is the default")
    share = max(1, int(config.shard_mb * _MEGABYTE))
    pairs = bool(config.source_column)
    if not config.paths and pairs:
        raise ValueError(_NO_PAIRS)
    if not config.paths:
        return _builtin()
    pieces: list[CorpusPart] = []
    identity: list[object] = []
    asked = asked_for(config)
    for path in config.paths:
        if path.startswith(hub_dataset.PREFIX):
            data_set = hub_dataset.describe(path)
            check_columns(data_set.schema, data_set.uri, asked)
            identity.append([data_set.uri, data_set.fingerprint])
            spans = ranges(data_set.rows, data_set.size, share)
            pieces += [part_for(data_set.uri, "hub", asked, data_set.size // len(spans), *span) for span in spans]
    selection = select([path for path in config.paths if not path.startswith(hub_dataset.PREFIX)])
    if config.strict and selection.left_out:
        raise ValueError(f"{left_out_line(selection.left_out)}, and data.strict allows none of that: {_WAYS_OUT}")
    files = [file for file in selection.files if file.size > 0]
    # A corpus of a few shards would leave most CPUs idle. The cut depends on the corpus alone, never on the workers.
    share = min(share, max(_SMALLEST_PART, sum(file.size for file in files) // _PARTS))
    with ThreadPoolExecutor(_INSPECTORS) as pool:
        for inspected in pool.map(lambda file: inspect_file(file, asked, share=share, strict=config.strict), files):
            pieces += inspected
    if not pieces:
        raise ValueError(
            f"the corpus is empty: data.paths {' '.join(config.paths)} names {len(selection.files)} file(s), and none holds any text; "
            "pass other files, or no path for the built-in corpus"
        )
    root = _common_root([file.uri for file in files])
    digests = (hashes or ContentHashes()).of(files)
    identity += [[digest, whole_part(file, asked).format, file.compression] for file, digest in zip(files, digests, strict=True)]
    parts = tuple(replace(part, index=i) for i, part in enumerate(_grouped(pieces, share)))
    name = config.paths[0].removeprefix(hub_dataset.PREFIX) if not files else os.path.basename((root or files[0].uri).rstrip("/"))
    fingerprint = _digest([identity, *reversed(config.columns), share])
    return Corpus(
        name=name or "corpus", parts=parts, fingerprint=fingerprint, left_out=selection.left_out,
        sources=tuple((bare(file.uri)[len(root) :], digest) for file, digest in zip(files, digests, strict=True)),
    )


def asked_for(config: "DataConfig") -> Asked:
    """What these settings read of every file: a text, or source and target, in which lists stand for sentences and references.

    A .txt holds paragraphs or lines, unless its columns are asked for: those of pairs, or one by number."""
    if config.source_column:
        return Asked(columns=(config.source_column, config.text_column), settings=_SETTINGS, lists=True, txt="tsv")
    txt: Literal["tsv", "lines", "txt"] = "tsv" if config.text_column.isdecimal() else "lines" if config.unit == "line" else "txt"
    return Asked(columns=(config.text_column,), settings=_SETTINGS[1:], txt=txt)


def _builtin() -> Corpus:
    found = builtin.sources()
    pieces = (CorpusPart(index=i, uri=f"builtin:{source.name}", format="builtin", version=source.version) for i, source in enumerate(found))
    identity = ["builtin", builtin.REVISION, [[source.name, source.version] for source in found]]
    return Corpus(name="builtin", parts=tuple(pieces), fingerprint=_digest(identity))


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()


def _grouped(pieces: Sequence[CorpusPart], share: int) -> Iterator[CorpusPart]:
    """Neighbouring whole files put together while they stay within ``share`` bytes, so that many small files make few parts."""
    group: list[CorpusPart] = []
    for piece in pieces:
        ranged = piece.start is not None or (group and group[0].start is not None)
        if group and (ranged or sum(part.size for part in group) + piece.size > share):
            yield replace(group[0], rest=tuple(group[1:]))
            group = []
        group.append(piece)
    if group:
        yield replace(group[0], rest=tuple(group[1:]))


def _common_root(uris: Sequence[str]) -> str:
    """The folders that all files share, with a closing slash: names below it are the same on every machine."""
    folders = zip(*(uri.split("/")[:-1] for uri in uris), strict=False)
    shared = itertools.takewhile(lambda names: len(set(names)) == 1, folders)
    return "".join(names[0] + "/" for names in shared)
