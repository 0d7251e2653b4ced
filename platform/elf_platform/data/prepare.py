"""Text to tokenised, packed, hashed shards with a manifest, on Ray Data.

One task handles one part of the corpus, its output is named by the part's number and packing never crosses parts, so the
number of workers cannot change a byte. Everything is written under the storage folder, which all nodes must see.
"""

import contextlib
import fcntl
import functools
import json
import logging
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elf.data.packing import check_length
from elf.data.tokenizer import Tokenizer, load_tokenizer
from elf_platform.config import DataConfig
from elf_platform.data.content import ContentHashes
from elf_platform.data.corpora import Corpus, resolve
from elf_platform.data.manifest import FILE, OLD_FORMATS, TRAINED, Manifest, identity
from elf_platform.data.pipeline import TOKENIZER, WORK, Each, Preparation, data_key
from elf_platform.data.selection import left_out_line
from elf_platform.data.shards import size_problem
from elf_platform.data.split import check_fraction
from elf_platform.data.tasks import Statement
from elf_platform.terminal import harmless

_HASHES = ".hashes.json"  # in the storage's data folder


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """A folder of shards that is ready for ``RowReader``."""

    folder: Path
    manifest: Manifest
    tokenizer: Tokenizer
    reused: bool
    """Whether the data was there already."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each phase; empty when the data was there already."""


def prepare(
    config: DataConfig, storage: Path, *, workers: int = 0, progress: bool = True, each: Each | None = None, begun_on: str = ""
) -> PreparedData:
    """Prepare the corpus of ``config`` under ``storage``/data, or find it prepared there.

    ``workers`` caps the tasks that run at once (0: all CPUs of the cluster). ``each`` runs the tasks; without it they run on Ray
    Data, and Ray must be initialised. A preparation that was killed goes on where it stopped; one that was damaged since has
    its missing and short shards made anew. ``begun_on``: the content hash of the data that a run was trained on so far; where they are
    still there, they are what is returned, whatever became of the corpus since, and a line says when it is another or gone.

    Raises ValueError for settings and corpora that give no data, unreadable input under ``strict`` and a full disk.
    """
    check_length(config.length)
    check_fraction(config.valid_fraction)
    if workers < 0:
        raise ValueError(f"workers is {workers}, but must be 0 (all CPUs of the cluster) or more")
    place = storage.absolute() / "data"
    hashes = ContentHashes(place / _HASHES, progress=progress)
    if begun_on and (data := _begun(place, begun_on, config)) is not None:
        _compare(data, config, hashes)
        return data
    try:
        corpus = resolve(config, hashes)
    except FileNotFoundError as error:
        gone = f". The data that the run was begun on, {begun_on[:12]}, are not in {place} any more either" if begun_on else ""
        raise FileNotFoundError(f"{error}{gone}") from error
    if corpus.left_out:
        _say(left_out_line(corpus.left_out))
    source = config.tokenizer.source
    given = None if source in TRAINED else load_tokenizer(source)
    folder = _folder(place, corpus.name, data_key(config, corpus, given))
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        was_there = (folder / FILE).is_file()
        if was_there:
            manifest = _intact(folder, config, corpus, given)
            if manifest is not None:
                tokenizer = load_tokenizer(folder / TOKENIZER)
                return PreparedData(folder=folder, manifest=manifest, tokenizer=tokenizer, reused=True)
        if old := _of_old_format(place, config, corpus.name):
            _say(f"{old} was prepared by an earlier version, which read some texts differently; preparing the data once more")
        preparation = Preparation(
            config=config,
            corpus=corpus,
            folder=folder,
            given=given,
            each=each or functools.partial(_on_ray, workers=workers),
            progress=progress,
            say=_say,
            distrust=was_there,
        )
        manifest, tokenizer = preparation.run()
    return PreparedData(folder=folder, manifest=manifest, tokenizer=tokenizer, reused=False, seconds=preparation.seconds)


def _folder(place: Path, name: str, key: str) -> Path:
    """Where the data with this key lies, or will: it may have been prepared when the corpus had another name."""
    there = sorted(path.parent for path in place.glob(f"*-{key}/{FILE}"))
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:60] or "corpus"
    return there[0] if there else place / f"{plain}-{key}"


def _manifests(place: Path) -> Iterator[tuple[Path, Manifest]]:
    """Every prepared folder with its manifest; what cannot be read is none."""
    for path in sorted(place.glob(f"*/{FILE}")):
        with contextlib.suppress(ValueError, OSError):
            yield path.parent, Manifest.load(path.parent)


def _of_old_format(place: Path, config: DataConfig, name: str) -> Path | None:
    """Data of an earlier version that were prepared from a corpus of this name with these settings."""
    for folder, old in _manifests(place):
        if old.format in OLD_FORMATS and old.name == name and identity(old.data) == identity(config):
            return folder
    return None


def _begun(place: Path, content_hash: str, config: DataConfig) -> PreparedData | None:
    """The data with this hash among the prepared folders of ``place``, when they are whole and made with the settings of ``config``."""
    for folder, manifest in _manifests(place):
        if manifest.content_hash != content_hash or identity(manifest.data) != identity(config):
            continue
        if not any(size_problem(folder, record) for record in manifest.shards) and (folder / TOKENIZER).is_file():
            tokenizer = load_tokenizer(folder / TOKENIZER)
            if tokenizer.fingerprint == manifest.tokenizer:
                return PreparedData(folder=folder, manifest=manifest, tokenizer=tokenizer, reused=True)
    return None


def _compare(data: PreparedData, config: DataConfig, hashes: ContentHashes) -> None:
    """Say it when the corpus is not what a run was begun on; its prepared data are, and the run goes on with them."""
    source, was = config.tokenizer.source, data.manifest
    why = ""
    try:
        found = resolve(config, hashes).fingerprint
        if found != was.corpus and was.format not in OLD_FORMATS:  # their fingerprints said something else
            why = "the corpus has changed since the run was begun"
        elif source not in TRAINED and load_tokenizer(source).fingerprint != was.tokenizer:
            why = f"the tokenizer {source} has changed since the run was begun"
    except (OSError, ValueError) as error:
        why = f"what the run was begun on cannot be read any more ({str(error).rstrip('.')})"
    if why:
        _say(f"{why}; it goes on with the data that were prepared then, in {data.folder}. To train on what is there, give another --name")


def corpus_line(data: PreparedData) -> str:
    """Which corpus it is and how large, so that nobody trains on another one without noticing."""
    manifest = data.manifest
    read, rows = manifest.read, manifest.train.rows + manifest.valid.rows
    return f"{manifest.name}, {read.documents:,} documents, {read.bytes / 1e6:,.1f} MB of text, {rows:,} rows ({data.folder})"


def summary(data: PreparedData) -> str:
    """What was prepared and where it lies, in a few lines."""
    manifest = data.manifest
    lines = [
        f"{split}: {of.documents:,} documents, {of.tokens:,} tokens, {of.rows:,} rows of {manifest.data.length}"
        for split, of in (("train", manifest.train), ("valid", manifest.valid))
    ]
    lines += manifest.cut_lines()
    if data.seconds:
        lines.append("seconds: " + ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in data.seconds.items()))
    lines.append(f"{'found' if data.reused else 'prepared'} {data.folder} (content hash {manifest.content_hash[:12]})")
    return harmless("\n".join(lines))


def _intact(folder: Path, config: DataConfig, corpus: Corpus, given: Tokenizer | None) -> Manifest | None:
    """The manifest of finished data; None, and no manifest any more, when files are missing or have another size."""
    manifest = Manifest.load(folder)
    manifest.require(folder, data=config, corpus=corpus.fingerprint, tokenizer=given.fingerprint if given else "")
    skipped = manifest.read.skipped_files + manifest.read.skipped_lines
    if config.strict and skipped:
        raise ValueError(
            f"the data in {folder} was prepared with {manifest.read.skipped_files} unreadable files and "
            f"{manifest.read.skipped_lines} lines or documents left out, which data.strict forbids; mend the input (it is "
            "prepared anew when it changes), or drop data.strict"
        )
    problems = [problem for record in manifest.shards if (problem := size_problem(folder, record))]
    if not (folder / TOKENIZER).is_file():
        problems.append(f"{folder / TOKENIZER} is missing")
    if not problems:
        shutil.rmtree(folder / WORK, ignore_errors=True)  # of a preparation that was killed after its last file
        return manifest
    more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
    _say(f"{problems[0]}{more}; preparing what is damaged again")
    (folder / FILE).unlink()
    return None


def _on_ray(jobs: Sequence[Any], task: Callable[[Any], Statement], *, workers: int) -> Iterator[Statement]:
    """Run ``task`` on each job as one Ray Data task of one CPU; statements come as they are ready.

    Raises ValueError with the message of the first task that refused its input.
    """
    import ray.data

    with quiet_ray_data():
        rows = ray.data.from_items([{"job": pickle.dumps(job)} for job in jobs], override_num_blocks=len(jobs))
        results = rows.map(_run, fn_args=(task,), num_cpus=1, compute=ray.data.TaskPoolStrategy(size=workers or None))
        for row in results.iter_rows():
            if row["refused"]:
                raise ValueError(row["refused"])
            yield json.loads(row["statement"])


def _run(row: dict[str, Any], task: Callable[[Any], Statement]) -> dict[str, str]:
    # One task has one CPU: threads of the tokenizer would fight with the other tasks for theirs.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        return {"statement": json.dumps(task(pickle.loads(row["job"]))), "refused": ""}
    # As a value, so that the user reads the paragraph and not the trace of a remote call.
    except ValueError as error:
        return {"statement": "", "refused": str(error) or repr(error)}
    except OSError as error:  # the disk is full, a file is gone, the network fails
        return {"statement": "", "refused": f"{error}; mend that and run the same command again: finished parts are kept"}


@contextlib.contextmanager
def quiet_ray_data() -> Iterator[None]:
    """Ray Data without its own bars and start-up lines (its log file and its errors stay), and with all workers busy at once."""
    from ray.data import DataContext

    context = DataContext.get_current()
    # With the reservation, Ray Data runs few tasks at a time while it learns their sizes: of two workers one stood idle in the
    # first 1.2 s and in half of the time after. Here a task returns one small row, and there is nothing to reserve.
    switches = ("enable_progress_bars", "print_on_execution_start", "op_resource_reservation_enabled")
    before = {name: getattr(context, name) for name in switches if hasattr(context, name)}
    handlers = [handler for handler in logging.getLogger("ray.data").handlers if isinstance(handler, logging.StreamHandler)]
    levels = [handler.level for handler in handlers]
    for name in before:
        setattr(context, name, False)
    for handler in handlers:
        handler.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, so that two runs started together prepare the data once; waits for the other one."""
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"another process is preparing {folder}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks: the files are the same whoever writes them
        yield


def _say(text: str) -> None:
    sys.stderr.write(f"{harmless(text)}\n")
