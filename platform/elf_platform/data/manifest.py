"""The manifest of prepared data: what went in, where every token went, and the hash of each shard. Written last.

A folder without a manifest is a preparation that did not finish; a manifest that does not match its folder is an error that says
what differs.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elf.files import write_text
from elf_platform.config import DataConfig
from elf_platform.config_io import from_dict, to_dict
from elf_platform.data.selection import LeftOut, left_out_line
from elf_platform.data.shards import ShardRecord, Split
from elf_platform.differences import differences

FORMAT = 2
"""Version of the manifest, of the shards' layout and of what reading makes of a text."""
OLD_FORMATS = (1,)
"""What is read still, so that a run goes on with data that was prepared before: 1 told files apart by their times and names."""
FILE = "manifest.json"
TRAINED = ("bpe", "unigram")
"""Tokenizer sources that mean: train one."""


PAIR_SETTINGS = ("source_column", "source_length", "split_by")
PAIR_READ = ("empty_sources", "empty_targets")
NOT_OF_THE_DATA = ("further_targets", "left_out")
"""Counts of what was read beside the data: no part of their identity."""
PAIR_COUNTS = ("sources_cut", "targets_cut", "source_tokens_cut", "target_tokens_cut")


def identity(data: DataConfig) -> dict[str, Any]:
    """The settings that decide the bytes of the shards, as a plain dictionary.

    Where the corpus and the tokenizer lie does not count (their fingerprints do), nor does ``strict``, under which the same
    bytes come out or none.
    """
    plain: dict[str, Any] = to_dict(data, identity=True)
    del plain["paths"], plain["strict"]
    if not data.source_column:  # as it was before there were pairs
        for name in PAIR_SETTINGS:
            del plain[name]
    if data.tokenizer.source not in TRAINED:
        plain["tokenizer"] = {}
    return plain


@dataclass(frozen=True, kw_only=True)
class CorpusCounts:
    """What reading the corpus met."""

    documents: int = 0
    """Documents read; one that was cut at the reader's size limit counts once for each piece."""
    duplicates: int = 0
    """Documents left out because the same normalised text came before."""
    empty: int = 0
    """Documents left out because nothing was left after normalisation."""
    skipped_files: int = 0
    """Files, or rests of files, that could not be read."""
    skipped_lines: int = 0
    """Lines or documents in readable files that could not be read."""
    bytes: int = 0
    """UTF-8 bytes of normalised text, duplicates included."""
    empty_sources: int = 0
    """Pairs among ``empty`` whose source was empty."""
    empty_targets: int = 0
    """Pairs among ``empty`` whose target was empty."""
    further_targets: int = 0
    """Targets of pairs that came in lists, behind the first of each list; the first alone is kept."""
    left_out: tuple[LeftOut, ...] = ()
    """Files and folders that the paths name and nobody reads, by reason."""


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """Where the tokens of one split went: tokens + eos = tokens_in_rows + dropped + truncated."""

    documents: int = 0
    tokens: int = 0
    """Tokens of the documents, without end-of-text tokens."""
    eos: int = 0
    """End-of-text tokens added."""
    rows: int = 0
    tokens_in_rows: int = 0
    cut: int = 0
    """Documents that lie in more than one row."""
    dropped: int = 0
    """Tokens in no row; every packing mode keeps all of them, and this states it."""
    truncated: int = 0
    """Tokens cut off the end of a document: of sources and targets of pairs; every packing of plain text keeps all."""
    sources_cut: int = 0
    """Pairs: sources that lost their end, being longer than data.source_length."""
    targets_cut: int = 0
    """Pairs: targets that lost their end."""
    source_tokens_cut: int = 0
    target_tokens_cut: int = 0

    @property
    def closes(self) -> bool:
        return self.tokens + self.eos == self.tokens_in_rows + self.dropped + self.truncated


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The identity of prepared data; see the fields."""

    format: int = FORMAT
    name: str
    """Name of the corpus."""
    corpus: str
    """Fingerprint of the corpus."""
    tokenizer: str
    """Fingerprint of the tokenizer in tokenizer.json."""
    vocab_size: int
    data: DataConfig
    """The settings the data was prepared with."""
    read: CorpusCounts
    train: SplitCounts
    valid: SplitCounts
    notes: tuple[str, ...] = ()
    """Decisions worth knowing, such as a validation split of a single document."""
    shards: tuple[ShardRecord, ...]
    code_version: str = ""
    content_hash: str = ""
    """SHA-256 over the other fields that belong to the data: not where it came from, nor which code made it."""

    def of(self, split: Split) -> SplitCounts:
        return self.train if split == "train" else self.valid

    def shards_of(self, split: Split) -> tuple[ShardRecord, ...]:
        return tuple(record for record in self.shards if record.split == split)

    def cut_lines(self) -> list[str]:
        """For people: the files that were left out, what was cut off the pairs of each split, and how many pairs were left out."""
        data, read = self.data, self.read
        if not data.source_column:
            return self._left_out_lines()
        lines = [
            f"{split}: {of.sources_cut:,} sources cut to {data.source_length} tokens ({of.source_tokens_cut:,} tokens lost), "
            f"{of.targets_cut:,} targets cut to {data.length - data.source_length - 1} ({of.target_tokens_cut:,} lost)"
            for split, of in (("train", self.train), ("valid", self.valid))
        ]
        return [
            *self._left_out_lines(),
            *lines,
            f"left out: {read.empty_sources:,} pairs with an empty source, {read.empty_targets:,} with an empty target"
            + (f", and {read.further_targets:,} targets behind the first of their lists" if read.further_targets else ""),
        ]

    def _left_out_lines(self) -> list[str]:
        return [left_out_line(self.read.left_out)] if self.read.left_out else []

    def computed_hash(self) -> str:
        return hashlib.sha256(json.dumps(self._hashed(), sort_keys=True).encode()).hexdigest()

    def _hashed(self) -> dict[str, Any]:
        plain: dict[str, Any] = to_dict(self) | {"data": identity(self.data)}
        del plain["code_version"], plain["content_hash"]
        if self.format != 1:  # then the folder's name was part of what a corpus is
            del plain["name"]
        for name in NOT_OF_THE_DATA:
            del plain["read"][name]
        if not self.data.source_column:  # as it was before there were pairs
            for counts, names in (("read", PAIR_READ), ("train", PAIR_COUNTS), ("valid", PAIR_COUNTS)):
                for name in names:
                    del plain[counts][name]
        return plain

    def save(self, folder: Path) -> "Manifest":
        """Write manifest.json with its content hash; returns the manifest that was written."""
        assert self.train.closes and self.valid.closes, "the account of tokens does not close"
        for split in ("train", "valid"):
            assert self.of(split).rows == sum(record.rows for record in self.shards_of(split)), "rows and shards disagree"
        complete = dataclasses.replace(self, content_hash=self.computed_hash())
        write_text(folder / FILE, json.dumps(to_dict(complete), indent=1) + "\n")
        return complete

    @staticmethod
    def load(folder: Path) -> "Manifest":
        """The manifest of a prepared folder.

        Raises FileNotFoundError when there is none, ValueError when it is damaged, edited or of another format.
        """
        path = folder / FILE
        if not path.is_file():
            what = "the preparation did not finish" if folder.is_dir() else "the folder does not exist"
            raise FileNotFoundError(
                f"{folder} holds no prepared data ({FILE} is missing: {what}); run jobs/prepare.py, which goes on from there"
            )
        again = f"delete {path} and run jobs/prepare.py again with the same settings: shards that are intact are kept"
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not a manifest: it holds no valid JSON ({error}); {again}") from error
        found = plain.get("format") if isinstance(plain, dict) else None
        if found not in (FORMAT, *OLD_FORMATS):
            raise ValueError(f"{path} has format {found}, but this code reads format {FORMAT}; run jobs/prepare.py again")
        try:
            manifest = from_dict(Manifest, plain)
        except ValueError as error:
            raise ValueError(f"{path} is not a manifest: {error}; {again}") from error
        expected = manifest.computed_hash()
        if manifest.content_hash != expected:
            raise ValueError(
                f"{path} was changed after it was written: its fields give the content hash {expected}, "
                f"but it states {manifest.content_hash or 'none'}; {again}"
            )
        return manifest

    def differences(self, other: "Manifest") -> list[str]:
        """Where ``other`` differs, as "data.length: 128 -> 256" lines; only what the content hash covers."""
        old, new = self._hashed(), other._hashed()
        shards = (old.pop("shards"), new.pop("shards"))
        lines = differences(old, new)
        return lines if shards[0] == shards[1] else [*lines, "shards: " + _shard_differences(*shards)]

    def require(self, folder: Path, *, data: DataConfig | None = None, corpus: str = "", tokenizer: str = "") -> None:
        """Raises ValueError, naming every field that differs, unless the data was prepared with these (those that are given)."""
        wanted = self
        if data is not None:
            wanted = dataclasses.replace(wanted, data=data)
        wanted = dataclasses.replace(wanted, corpus=corpus or self.corpus, tokenizer=tokenizer or self.tokenizer)
        lines = self.differences(wanted)
        if lines:
            raise ValueError(
                f"the prepared data in {folder} is not what is asked for (prepared -> asked): {'; '.join(lines)}. "
                "Prepare the data with the settings that are asked for, or ask for the ones it was prepared with"
            )


def _shard_differences(old: object, new: object) -> str:
    """Names of the shards that are not the same, the first few."""
    assert isinstance(old, list) and isinstance(new, list)
    a, b = ({record["name"]: record for record in records} for records in (old, new))
    names = sorted(name for name in {*a, *b} if a.get(name) != b.get(name))
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"{shown} differ"
