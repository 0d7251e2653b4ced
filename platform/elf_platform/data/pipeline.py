"""The phases of a preparation, in order: read, split, tokenizer, pack, commit. Where tasks run is the caller's affair.

Every phase leaves its result under the data folder before the next one starts, keyed by what went into it, so that a
preparation that was killed goes on where it stopped. The manifest comes last: without it, nothing has been prepared.
"""

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from elf.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from elf.files import clear_leftovers, committing, write_text
from elf_platform.config import DataConfig
from elf_platform.data import manifest as manifests
from elf_platform.data.corpora import Corpus
from elf_platform.data.disk import check_disk, shard_bytes, text_bytes
from elf_platform.data.manifest import CorpusCounts, Manifest, SplitCounts, identity
from elf_platform.data.pairs import SEPARATOR
from elf_platform.data.progress import ProgressLine
from elf_platform.data.readers import LONG_RUN
from elf_platform.data.sample import sample_text
from elf_platform.data.shards import ShardRecord, Split, hash_problem, size_problem
from elf_platform.data.split import LEFT_OUT, TRAIN, SplitPlan, plan_split
from elf_platform.data.store import StoredPart
from elf_platform.data.tasks import PackJob, ReadJob, Statement, finished, pack_part, read_part
from elf_platform.version import code_version

TOKENIZER = "tokenizer.json"
WORK = "work"
SOURCES = "sources.json"
"""Names and hashes of the files that the data was made of, in order; for people."""
J = TypeVar("J", ReadJob, PackJob)
Each = Callable[[Sequence[Any], Callable[[Any], Statement]], Iterator[Statement]]
"""Runs a task on every job, anywhere and in any order, and yields the statements as they come."""


@dataclass(kw_only=True)
class Preparation:
    """One preparation of ``corpus`` into ``folder``; ``given`` is the tokenizer when it is not to be trained."""

    config: DataConfig
    corpus: Corpus
    folder: Path
    given: Tokenizer | None
    each: Each
    progress: bool
    say: Callable[[str], None]
    distrust: bool = False  # check the hash of shards that are taken from an earlier preparation
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        return self.folder / WORK

    def run(self) -> tuple[Manifest, Tokenizer]:
        """All phases. Raises ValueError for a corpus without text, a full disk and, under ``strict``, unreadable input."""
        self.work.mkdir(parents=True, exist_ok=True)
        for place in (self.folder, self.work):
            clear_leftovers(place)
        expected = sum(map(text_bytes, self.corpus.parts))
        check_disk(self.folder, free=shutil.disk_usage(self.folder).free, text=expected, shards=2 * expected)
        reads = self._timed("read", self._read)
        stored = [StoredPart(self.work, part.index) for part in self.corpus.parts]
        indices = [part.load_index() for part in stored]
        sides = [part.load_sides() for part in stored] if self.config.source_column else None
        plan = self._timed("split", lambda: self._split(indices, sides))
        tokenizer = self._timed("tokenizer", lambda: self._tokenizer(stored, indices, plan))
        packs = self._timed("pack", lambda: self._pack(indices, plan, tokenizer))
        files = [{"name": name, "sha256": digest} for name, digest in self.corpus.sources]
        write_text(self.folder / SOURCES, json.dumps(files, indent=1) + "\n")
        manifest = self._manifest(reads, plan, packs, tokenizer).save(self.folder)
        shutil.rmtree(self.work)
        return manifest, tokenizer

    def _timed(self, phase: str, run: Callable[[], Any]) -> Any:
        began = time.monotonic()
        result = run()
        self.seconds[phase] = time.monotonic() - began
        return result

    def _read(self) -> list[Statement]:
        jobs = [
            ReadJob(
                part=part, work=self.work, strict=self.config.strict, split_by=self.config.split_by,
                key=_key(dataclasses.asdict(part), self.config.strict, self.config.split_by),
            )
            for part in self.corpus.parts
        ]
        statements = self._do("reading", jobs, read_part, [text_bytes(part) / 1e6 for part in self.corpus.parts])
        counts = _read_counts(statements)
        messages = [message for statement in statements for message in statement["messages"]]
        if counts.skipped_files or counts.skipped_lines:
            examples = "; ".join(messages[:3])
            self.say(f"skipped {counts.skipped_files} unreadable files and {counts.skipped_lines} lines or documents: {examples}")
        if runs := sum(statement.get("long_runs", 0) for statement in statements):
            few = [example for statement in statements for example in statement.get("long_examples", [])][:3]
            self.say(
                f"{runs:,} documents of .txt files have {LONG_RUN} lines and more and no blank line, and each was read as ONE document: "
                f"{'; '.join(few)}. Where each line is a document, set data.unit line"
            )
        if not counts.documents:
            raise ValueError(
                f"the corpus {self.corpus.name} holds no text: {len(jobs)} parts were read, {counts.empty} documents were empty, "
                f"{counts.skipped_files} files and {counts.skipped_lines} lines could not be read"
                f"{' (' + '; '.join(messages[:3]) + ')' if messages else ''}; check data.paths and data.text_column"
            )
        return statements

    def _split(self, indices: list[NDArray[np.void]], sides: list[NDArray[np.uint64]] | None) -> SplitPlan:
        plan = plan_split(indices, self.config.valid_fraction, sides)
        for note in plan.notes:
            self.say(note)
        kept_D = np.concatenate([index["bytes"][fate != LEFT_OUT] for index, fate in zip(indices, plan.fates, strict=True)])
        needed = shard_bytes(kept_D, self.config.length, self.config.packing)
        done = sum(path.stat().st_size for path in self.folder.glob("*.arrow"))
        check_disk(self.folder, free=shutil.disk_usage(self.folder).free, text=0, shards=max(0, needed - done))
        return plan

    def _tokenizer(self, stored: list[StoredPart], indices: list[NDArray[np.void]], plan: SplitPlan) -> Tokenizer:
        """The tokenizer of this folder: given, left by an earlier attempt, or trained now."""
        path = self.folder / TOKENIZER
        if self.given is None and path.is_file():
            # The folder's name stands for the corpus and the settings, so this is what training would give again.
            return load_tokenizer(path)
        tokenizer = self.given
        if tokenizer is None:
            settings = self.config.tokenizer
            kind: Literal["bpe", "unigram"] = "unigram" if settings.source == "unigram" else "bpe"
            held = sum(int(index["bytes"][fate == TRAIN].sum()) for index, fate in zip(indices, plan.fates, strict=True)) / 1e6
            with ProgressLine(f"training a {kind} tokenizer", min(held, settings.sample_mb), on=self.progress) as line:
                texts = sample_text(stored, indices, plan.fates, int(settings.sample_mb * 1e6))
                tokenizer = train_tokenizer(_sides(_counting(texts, line)), kind, settings.vocab_size)
        with committing(path) as temporary:
            tokenizer.save(temporary)
        return tokenizer

    def _pack(self, indices: list[NDArray[np.void]], plan: SplitPlan, tokenizer: Tokenizer) -> list[Statement]:
        jobs = []
        settings = (manifests.FORMAT, tokenizer.fingerprint, self.config.length, self.config.packing, self.config.source_length)
        for part, index, fate in zip(self.corpus.parts, indices, plan.fates, strict=True):
            job = PackJob(
                index=part.index,
                folder=self.folder,
                work=self.work,
                length=self.config.length,
                mode=self.config.packing,
                tokenizer=tokenizer.fingerprint,
                source_length=self.config.source_length,
                key=_key(settings, _digest(index), _digest(fate)),
            )
            with committing(job.fates) as temporary, temporary.open("wb") as file:
                np.save(file, fate)
            jobs.append(job)
        return self._do("tokenising", jobs, pack_part, [float(index["bytes"].sum()) / 1e6 for index in indices])

    def _do(self, phase: str, jobs: list[J], task: Callable[[J], Statement], sizes: list[float]) -> list[Statement]:
        """Statements of all jobs in their order; only those are run that no earlier attempt has finished."""
        results = {place: statement for place, job in enumerate(jobs) if (statement := self._reusable(job)) is not None}
        # The largest first, so that the workers finish at about the same time.
        missing = [place for place in range(len(jobs)) if place not in results]
        todo = [jobs[place] for place in sorted(missing, key=lambda place: -sizes[place])]
        if results and todo:
            self.say(f"{phase}: {len(results)} of {len(jobs)} parts were finished by an earlier attempt and are kept")
        if todo:
            known = sum(sizes) > 0
            sizes = sizes if known else [1.0] * len(jobs)
            total = sum(size for place, size in enumerate(sizes) if place not in results)
            with ProgressLine(phase, total, unit="MB" if known else "parts", digits=int(known), on=self.progress) as line:
                for statement in self.each(todo, task):
                    place = statement["index"]
                    if not jobs[place].statement.is_file():
                        raise ValueError(
                            f"a task wrote {jobs[place].statement}, but it cannot be seen here, so the task ran on a node with "
                            "another disk; choose a storage folder that all nodes share, with --storage or ELF_HOME"
                        )
                    results[place] = statement
                    line.advance(sizes[place])
        return [results[place] for place in range(len(jobs))]

    def _reusable(self, job: ReadJob | PackJob) -> Statement | None:
        """The statement of earlier work on this job, when the files it speaks of are there."""
        statement = finished(job)
        if statement is None:
            return None
        if isinstance(job, ReadJob):
            stored = StoredPart(job.work, job.part.index)
            paths = (stored.text_path, stored.index_path, *([stored.sides_path] if job.part.source_column else []))
            return statement if all(path.is_file() for path in paths) else None
        records = [ShardRecord(**record) for record in statement["shards"]]
        problem = hash_problem if self.distrust else size_problem
        return None if any(problem(job.folder, record) for record in records) else statement

    def _manifest(self, reads: list[Statement], plan: SplitPlan, packs: list[Statement], tokenizer: Tokenizer) -> Manifest:
        counts = _read_counts(reads)
        counts = dataclasses.replace(
            counts, duplicates=plan.duplicates, empty=counts.empty + sum(statement["empty"] for statement in packs),
            left_out=self.corpus.left_out,
        )
        records = tuple(ShardRecord(**record) for statement in packs for record in statement["shards"])
        splits = {split: _split_counts(packs, split) for split in ("train", "valid")}
        for split, of in splits.items():
            if not of.rows:
                raise ValueError(
                    f"the corpus {self.corpus.name} gives no rows for {split}: the tokenizer turned its documents into nothing; "
                    "check that data.tokenizer fits the language of the text"
                )
        return Manifest(
            name=self.corpus.name,
            corpus=self.corpus.fingerprint,
            tokenizer=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
            data=self.config,
            read=counts,
            train=splits["train"],
            valid=splits["valid"],
            notes=plan.notes,
            shards=tuple(sorted(records, key=lambda record: (record.split, record.name))),
            code_version=code_version(),
        )


def data_key(config: DataConfig, corpus: Corpus, given: Tokenizer | None) -> str:
    """Twelve hexadecimal digits over everything that decides the bytes of the shards."""
    return _key(manifests.FORMAT, identity(config), corpus.fingerprint, given.fingerprint if given else "trained")[:12]


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _digest(values: NDArray[Any]) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()


def _counting(texts: Iterator[str], line: ProgressLine) -> Iterator[str]:
    for text in texts:
        line.advance(len(text) / 1e6)
        yield text


def _sides(texts: Iterator[str]) -> Iterator[str]:
    """Sources and targets of pairs as texts of their own."""
    for text in texts:
        yield from text.split(SEPARATOR)


def _read_counts(statements: list[Statement]) -> CorpusCounts:
    names = ("documents", "empty", "skipped_files", "skipped_lines", "bytes", "empty_sources", "empty_targets", "further_targets")
    return CorpusCounts(**{name: sum(statement.get(name, 0) for statement in statements) for name in names})


def _split_counts(statements: list[Statement], split: Split | str) -> SplitCounts:
    names = [spec.name for spec in dataclasses.fields(SplitCounts)]
    return SplitCounts(**{name: sum(statement[split].get(name, 0) for statement in statements) for name in names})
