"""Data are what was read: not when a file was written, where it lies or what it is called; and a run goes on with the data it began on."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import elf_platform
from elf_platform.config import DataConfig, TokenizerConfig
from elf_platform.data.content import ContentHashes
from elf_platform.data.manifest import Manifest
from elf_platform.data.prepare import PreparedData, prepare
from elf_platform.data.selection import select


def here(jobs: Sequence[Any], task: Callable[[Any], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from map(task, jobs)


def write(folder: Path, *, word: str = "lamp") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(3):
        texts = [f"text {number} {i} of a {word} and the river {i * number}" for i in range(30)]
        (folder / f"{number}.txt").write_text("\n\n".join(texts))
    return folder


def run(corpus: Path | str, storage: Path, begun_on: str = "", **changes: Any) -> PreparedData:
    config = DataConfig(paths=(str(corpus),), tokenizer=TokenizerConfig(vocab_size=300), length=32, valid_fraction=0.1, **changes)
    return prepare(config, storage, progress=False, each=here, begun_on=begun_on)


def test_a_corpus_that_was_touched_copied_moved_or_renamed_is_the_same_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write(tmp_path / "corpus")
    first = run(corpus, tmp_path)
    assert not first.reused
    os.utime(corpus / "1.txt", ns=(10**18, 10**18))
    copied = Path(shutil.copytree(corpus, tmp_path / "elsewhere" / "copied"))
    (copied / "1.txt").rename(copied / "1b.txt")
    shutil.move(corpus, tmp_path / "moved")
    for place in (tmp_path / "moved", copied, f"{copied}/*.txt"):
        again = run(place, tmp_path)
        assert again.reused and again.folder == first.folder
        assert run(place, tmp_path, first.manifest.content_hash).reused
    assert capsys.readouterr().err == ""
    anew = run(copied, tmp_path / "other storage")
    assert anew.manifest.content_hash == first.manifest.content_hash
    files = json.loads((anew.folder / "sources.json").read_text())
    assert [file["name"] for file in files] == ["0.txt", "1b.txt", "2.txt"]
    assert [file["sha256"] for file in files] == [hashlib.sha256((copied / file["name"]).read_bytes()).hexdigest() for file in files]


def test_a_run_goes_on_with_the_data_it_began_on_and_says_what_became_of_the_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write(tmp_path / "corpus")
    first = run(corpus, tmp_path)
    begun_on = first.manifest.content_hash
    (corpus / "1.txt").write_text("another text\n\nand one more\n\n" + (corpus / "1.txt").read_text())
    again = run(corpus, tmp_path, begun_on)
    assert again.folder == first.folder and again.manifest == first.manifest
    assert "the corpus has changed since the run was begun; it goes on with the data that were prepared then" in capsys.readouterr().err
    other = run(corpus, tmp_path)
    assert other.folder != first.folder and other.manifest.content_hash != begun_on
    shutil.rmtree(corpus)
    capsys.readouterr()
    assert run(corpus, tmp_path, begun_on).folder == first.folder
    assert "nothing matches it" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="nothing matches it"):
        run(corpus, tmp_path, begun_on, packing="document")
    (first.folder / "train-00000.arrow").unlink()
    with pytest.raises(FileNotFoundError, match="nothing matches it"):
        run(corpus, tmp_path, begun_on)


def as_of_old(data: PreparedData) -> Manifest:
    """The manifest as version 1 wrote it: its hash held the corpus's name, and its fingerprint the files' times."""
    return dataclasses.replace(data.manifest, format=1, corpus="f" * 64).save(data.folder)


def test_data_of_the_earlier_format_serve_the_runs_that_began_on_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write(tmp_path / "corpus")
    first = run(corpus, tmp_path)
    shutil.move(first.folder, first.folder.with_name("corpus-0123456789ab"))
    old = as_of_old(dataclasses.replace(first, folder=first.folder.with_name("corpus-0123456789ab")))
    plain = json.loads((first.folder.with_name("corpus-0123456789ab") / "manifest.json").read_text())
    assert plain["format"] == 1 and old.content_hash != first.manifest.content_hash
    again = run(corpus, tmp_path, old.content_hash)
    assert again.manifest == old and capsys.readouterr().err == ""
    new = run(corpus, tmp_path)
    assert not new.reused and new.manifest == first.manifest
    assert "corpus-0123456789ab was prepared by an earlier version" in capsys.readouterr().err


def test_hashes_are_remembered_until_a_file_changes_and_the_memory_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write(tmp_path / "corpus")
    for path in corpus.iterdir():
        os.utime(path, ns=(10**18, 10**18))
    files = select([str(corpus)]).files
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(corpus.iterdir())]
    memory = tmp_path / "hashes.json"
    read: list[str] = []
    digest = ContentHashes._digest
    monkeypatch.setattr(ContentHashes, "_digest", lambda self, file, line: read.append(file.uri[-5:]) or digest(self, file, line))
    assert ContentHashes(memory).of(files) == expected and sorted(read) == ["0.txt", "1.txt", "2.txt"]
    assert ContentHashes(memory).of(files) == expected and len(read) == 3
    content = (corpus / "1.txt").read_bytes()
    (corpus / "1.txt").write_bytes(content.replace(b"lamp", b"bell"))
    os.utime(corpus / "1.txt", ns=(10**18, 10**18))  # same size, same time: the change of the inode tells
    changed = ContentHashes(memory).of(select([str(corpus)]).files)
    assert changed[1] != expected[1] and changed[::2] == expected[::2] and read[3:] == ["1.txt"]
    for damage in ("{", "[]", '{"x": 1}'):
        memory.write_text(damage)
        assert ContentHashes(memory).of(select([str(corpus)]).files) == changed


def test_a_signal_is_heard_while_a_large_file_is_hashed(tmp_path: Path) -> None:
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(200 << 30)  # holes: no disk is used, and hashing goes on for minutes
    script = (
        "import signal, sys\n"
        "from elf_platform.data.content import ContentHashes\n"
        "from elf_platform.data.selection import select\n"
        "from elf_platform.stops import raise_on_sigterm\n"
        "raise_on_sigterm()\n"
        "files = select([sys.argv[1]]).files\n"
        "print('hashing', flush=True)\n"
        "ContentHashes().of(files)\n"
    )
    paths = os.pathsep.join([str(Path(elf_platform.__file__).parents[1]), *sys.path])
    command, environment = [sys.executable, "-c", script, str(tmp_path)], os.environ | {"PYTHONPATH": paths}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None and job.stdout.readline() == "hashing\n"
        time.sleep(0.5)
        began = time.monotonic()
        job.send_signal(signal.SIGTERM)
        job.wait(60)
        assert time.monotonic() - began < 8
        assert job.stderr is not None and "Terminated" in job.stderr.read()
