"""What a prepared folder holds, for people: a full check of every hash, and a summary with sample rows."""

import io
import json
import sys
from pathlib import Path

import numpy as np
from rich.table import Table

from elf.data.tokenizer import load_tokenizer
from elf_platform.data.manifest import Manifest
from elf_platform.data.pairs import held_out_pairs
from elf_platform.data.pipeline import TOKENIZER
from elf_platform.data.reader import RowReader
from elf_platform.data.shards import SPLITS, hash_problem
from elf_platform.lookup import resolve
from elf_platform.terminal import Terminal, harmless

_BARS = 8
_WIDTH = 40


def verify(folder: Path) -> list[str]:
    """Every way in which the folder is not what was prepared, reading all of it; empty when it is."""
    try:
        manifest = Manifest.load(folder)
    except (FileNotFoundError, ValueError) as error:
        return [str(error)]
    problems = [problem for record in manifest.shards if (problem := hash_problem(folder, record))]
    try:
        found = load_tokenizer(folder / TOKENIZER).fingerprint
        if found != manifest.tokenizer:
            problems.append(f"{folder / TOKENIZER} has the fingerprint {found}, but the manifest says {manifest.tokenizer}")
    except (OSError, ValueError) as error:
        problems.append(str(error))
    return problems


def show(
    *, inspected: Path | None = None, verified: Path | None = None, held_out: Path | None = None, storage: Path | None = None
) -> int:
    """Print what was asked for, of one folder, or of the data of a run in ``storage``; the exit status: 1 for a folder that is not what was
    prepared.

    held_out: the validation pairs, a line of JSON each, with "source" and "text" (the target, as files to score have it)."""
    place = inspected or verified or held_out
    assert place is not None
    folder = resolve(place, "data", storage=storage)
    problems = verify(folder) if verified is not None else []
    if inspected is not None:
        text = harmless(inspect(folder))
    elif held_out is not None:
        pairs = held_out_pairs(folder)
        text = "\n".join(json.dumps({"source": source, "text": target}, ensure_ascii=False) for source, target in pairs)
    else:
        text = "\n".join(problems) or f"{folder}: every hash is as it was prepared"
    sys.stdout.write(f"{text}\n")
    return 1 if problems else 0


def inspect(folder: Path, *, samples: int = 3) -> str:
    """Counts, the lengths of the rows as bars, and the beginning of ``samples`` rows of each split, as plain text."""
    manifest = Manifest.load(folder)
    read, data = manifest.read, manifest.data
    lines = [
        f"{folder.name}: {manifest.name}, content hash {manifest.content_hash}",
        f"read {read.documents:,} documents ({read.bytes / 1e6:,.1f} MB); left out {read.duplicates:,} duplicates, "
        f"{read.empty:,} empty, {read.skipped_files:,} unreadable files and {read.skipped_lines:,} unreadable lines",
        f"rows of {data.length} tokens, packing {data.packing}, vocabulary {manifest.vocab_size:,}, by {manifest.code_version}",
        *manifest.notes,
        *manifest.cut_lines(),
        _table(manifest),
        *(_rows_of(RowReader(folder, split), samples) for split in SPLITS),
    ]
    return "\n".join(lines)


def _table(manifest: Manifest) -> str:
    """The account of tokens by split."""
    columns = ("split", "documents", "tokens", "eos", "rows", "in rows", "filled", "cut", "dropped", "truncated", "shards")
    table = Table(*columns)
    for split in SPLITS:
        of = manifest.of(split)
        filled = of.tokens_in_rows / max(1, of.rows * manifest.data.length)
        counts = (of.documents, of.tokens, of.eos, of.rows, of.tokens_in_rows)
        shards = len(manifest.shards_of(split))
        rest = (of.cut, of.dropped, of.truncated, shards)
        table.add_row(split, *(f"{count:,}" for count in counts), f"{filled:.1%}", *(f"{count:,}" for count in rest))
    out = io.StringIO()
    Terminal(out, width=120).print(table)
    return out.getvalue().rstrip("\n")


def _rows_of(reader: RowReader, samples: int) -> str:
    """Histogram of the lengths of at most 10,000 rows taken evenly, and decoded beginnings."""
    chosen = np.unique(np.linspace(0, len(reader) - 1, min(len(reader), 10_000)).astype(np.int64))
    lengths = np.concatenate([reader.read(part).length_B.numpy() for part in np.array_split(chosen, len(chosen) // 500 + 1)])
    counts, edges = np.histogram(lengths, bins=_BARS, range=(0, reader.length))
    lines = [f"{reader.split}: tokens in a row"]
    for count, low, high in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        bar = "█" * int(np.ceil(_WIDTH * count / counts.max()))
        lines.append(f"  {low:6.0f} to {high:6.0f} {bar} {count / counts.sum():.1%}")
    batch = reader.read(np.unique(np.linspace(0, len(reader) - 1, samples + 2)[1:-1].astype(np.int64)))
    for ids, length, source, segment in zip(
        batch.ids_BL, batch.length_B.tolist(), batch.cond_length_B.tolist(), batch.segment_BL, strict=True
    ):
        if source:
            sides = [" ".join(reader.tokenizer.decode(side).split()) for side in (ids[:source].tolist(), ids[source:length].tolist())]
            lines.append(f"  {source} tokens of source, {length - source} of target: " + " -> ".join(side[:200] for side in sides))
            continue
        documents = [ids[segment == number].tolist() for number in range(1, int(segment.max()) + 1)]
        shown = " | ".join(" ".join(reader.tokenizer.decode(document).split()) for document in documents)
        lines.append(f"  {length} tokens of {len(documents)} documents: {shown[:400]}{' ...' if len(shown) > 400 else ''}")
    return "\n".join(lines)
