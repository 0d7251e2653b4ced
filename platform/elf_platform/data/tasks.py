"""What one worker does with one part of the corpus: read it, and later pack it. Pure functions of their job and of files.

A task writes a statement (JSON) last, under the key of everything that went in; a preparation that is run again takes a
statement with the right key for the work.
"""

import functools
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from elf.data.packing import Int32, Int64, Mode, Packed, flatten, pack
from elf.data.pairs import pack_pairs
from elf.data.tokenizer import Tokenizer, load_tokenizer, normalise
from elf.files import write_text
from elf_platform.data.pairs import joined, part_pairs, parted, side_of
from elf_platform.data.parts import CorpusPart
from elf_platform.data.readers import ReadCounts, read_documents
from elf_platform.data.shards import SPLITS, ShardWriter, Split
from elf_platform.data.split import TRAIN, VALID, UInt8
from elf_platform.data.store import StoredPart

GROUP_TOKENS = 1 << 25
"""Tokens packed at a time: bounds the memory of a task (about 0.5 GB) when a part is much larger than data.shard_mb."""
Statement = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ReadJob:
    """Read ``part`` into the work folder."""

    part: CorpusPart
    work: Path
    strict: bool
    key: str
    split_by: str = "target"  # of pairs

    @property
    def statement(self) -> Path:
        return self.work / f"read-{self.part.index:05d}.json"


@dataclass(frozen=True, kw_only=True)
class PackJob:
    """Tokenise and pack the stored documents of part ``index`` into shards in ``folder``."""

    index: int
    folder: Path
    work: Path
    length: int
    mode: Mode
    tokenizer: str  # fingerprint
    key: str
    source_length: int = 0  # above 0: the documents are pairs

    @property
    def statement(self) -> Path:
        return self.folder / f"part-{self.index:05d}.json"

    @property
    def fates(self) -> Path:
        return self.work / f"split-{self.index:05d}.npy"


def read_part(job: ReadJob) -> Statement:
    """Read, normalise, hash and store the documents of one part.

    Raises ValueError for unreadable input when ``job.strict``.
    """
    began = time.monotonic()
    counts = ReadCounts()
    left_out: Counter[str] = Counter()

    def pairs() -> Iterator[str]:
        for source, target in part_pairs(job.part, strict=job.strict, counts=counts):
            if source and target:
                yield joined((source, target))
            else:
                left_out.update(empty=1, empty_sources=not source, empty_targets=not target)

    def documents() -> Iterator[str]:
        for text in read_documents(job.part, strict=job.strict, counts=counts):
            text = normalise(text)
            if text and not text.isspace():
                yield text
            else:
                left_out["empty"] += 1

    stored = StoredPart(job.work, job.part.index)
    if job.part.source_column:
        index = stored.write(pairs(), functools.partial(side_of, split_by=job.split_by))
    else:
        index = stored.write(documents())
    statement = {
        "key": job.key,
        "index": job.part.index,
        "documents": len(index),
        "empty": left_out["empty"] + counts.empty_documents,
        "empty_sources": left_out["empty_sources"],
        "empty_targets": left_out["empty_targets"],
        "further_targets": counts.further_targets,
        "long_runs": counts.long_runs,
        "long_examples": counts.long_examples,
        "skipped_files": counts.skipped_files,
        "skipped_lines": counts.skipped_lines,
        "bytes": int(index["bytes"].sum()),
        "messages": counts.messages[:5],
        "seconds": time.monotonic() - began,
    }
    write_text(job.statement, json.dumps(statement, indent=1))
    return statement


class _SplitPacker:
    """Collects the tokens of one split of a part and packs them group by group."""

    def __init__(self, writer: ShardWriter, job: PackJob, tokenizer: Tokenizer) -> None:
        self.writer = writer
        self.job, self.tokenizer = job, tokenizer
        self.counts: Counter[str] = Counter()
        self._tokens: list[Int32] = []
        self._lengths: list[Int64] = []
        self._waiting = 0

    def add_pairs(self, sources: list[list[int]], targets: list[list[int]]) -> None:
        """Pairs do not share rows, so nothing has to wait for more of them."""
        settings = self.job
        packed = pack_pairs(
            sources, targets, length=settings.length, source_length=settings.source_length, eos_id=self.tokenizer.eos_id
        )
        self._write(packed)

    def add(self, documents: list[list[int]]) -> None:
        tokens_N, length_D = flatten(documents)
        self._tokens.append(tokens_N)
        self._lengths.append(length_D)
        self._waiting += len(tokens_N)
        if self._waiting >= GROUP_TOKENS:
            self.flush()

    def flush(self) -> None:
        if not self._lengths:
            return
        tokens_N, length_D = np.concatenate(self._tokens), np.concatenate(self._lengths)
        self._tokens, self._lengths, self._waiting = [], [], 0
        packed = pack(
            tokens_N,
            length_D,
            length=self.job.length,
            mode=self.job.mode,
            eos_id=self.tokenizer.eos_id,
            pad_id=self.tokenizer.pad_id,
        )
        self._write(packed)

    def _write(self, packed: Packed) -> None:
        self.writer.write(packed)
        self.counts.update(
            documents=packed.documents,
            tokens=packed.tokens_in,
            eos=packed.eos_added,
            rows=len(packed.length_R),
            tokens_in_rows=packed.tokens_in_rows,
            cut=packed.cut,
            dropped=packed.dropped,
            truncated=packed.truncated,
            sources_cut=packed.sources_cut,
            targets_cut=packed.targets_cut,
            source_tokens_cut=packed.source_tokens_cut,
            target_tokens_cut=packed.target_tokens_cut,
        )


def pack_part(job: PackJob) -> Statement:
    """Tokenise the kept documents of one part and write its shards, one for each split that has rows here."""
    began, cpu_began = time.monotonic(), time.process_time()
    tokenizer = _tokenizer(job.folder, job.tokenizer)
    fate_D: UInt8 = np.load(job.fates, allow_pickle=False)
    seconds = {"tokenise": 0.0}
    empty = begin = 0
    with ExitStack() as stack:
        packers: dict[Split, _SplitPacker] = {}
        for split in SPLITS:
            path = job.folder / f"{split}-{job.index:05d}.arrow"
            packers[split] = _SplitPacker(stack.enter_context(ShardWriter(path, split=split, length=job.length)), job, tokenizer)
        chosen_by: tuple[tuple[Split, int], ...] = (("train", TRAIN), ("valid", VALID))
        for texts in StoredPart(job.work, job.index).batches():
            fates = fate_D[begin : begin + len(texts)].tolist()
            begin += len(texts)
            for split, fate in chosen_by:
                chosen = [text for text, of in zip(texts, fates, strict=True) if of == fate]
                since = time.monotonic()
                sides: list[tuple[str, ...]] = list(zip(*map(parted, chosen), strict=True)) if job.source_length else [tuple(chosen)]
                encoded = [tokenizer.encode_batch(side) for side in sides]
                seconds["tokenise"] += time.monotonic() - since
                some = [parts for parts in zip(*encoded, strict=True) if all(parts)]
                empty += len(chosen) - len(some)
                if not some:
                    continue
                if job.source_length:
                    sources, targets = map(list, zip(*some, strict=True))
                    packers[split].add_pairs(sources, targets)
                else:
                    packers[split].add([document for (document,) in some])
        assert begin == len(fate_D), "the stored documents and their split disagree"
        for packer in packers.values():
            packer.flush()
    seconds |= {"all": time.monotonic() - began, "cpu": time.process_time() - cpu_began}
    records = [asdict(packer.writer.record) for packer in packers.values() if packer.writer.record is not None]
    statement: Statement = {"key": job.key, "index": job.index, "empty": empty, "shards": records, "seconds": seconds}
    statement |= {split: dict(packer.counts) for split, packer in packers.items()}
    write_text(job.statement, json.dumps(statement, indent=1))
    return statement


def finished(job: ReadJob | PackJob) -> Statement | None:
    """The statement of earlier work on the same input, or None when there is none."""
    try:
        statement = json.loads(job.statement.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return statement if isinstance(statement, dict) and statement.get("key") == job.key else None


@functools.lru_cache(maxsize=1)
def _tokenizer(folder: Path, fingerprint: str) -> Tokenizer:
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    assert tokenizer.fingerprint == fingerprint, "the tokenizer changed while the data was prepared"
    return tokenizer
