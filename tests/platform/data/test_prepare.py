"""Preparation end to end: the account closes, every document is found again in the rows, interruption costs what was lost."""

import dataclasses
import hashlib
import json
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_words import WORDS

from elf.data.tokenizer import load_tokenizer, normalise, train_tokenizer
from elf_platform.config import DataConfig, TokenizerConfig
from elf_platform.data.inspect_data import verify
from elf_platform.data.manifest import Manifest
from elf_platform.data.prepare import PreparedData, prepare, summary
from elf_platform.data.reader import RowReader
from elf_platform.data.shards import Split
from elf_platform.data.tasks import pack_part, read_part


class Serial:
    """Runs the tasks here, one by one, and remembers them; dies before a task when told to."""

    def __init__(self, *, die_at: int | None = None) -> None:
        self.die_at = die_at
        self.ran: list[str] = []

    def __call__(self, jobs: Sequence[Any], task: Callable[[Any], dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for job in jobs:
            if len(self.ran) == self.die_at:
                raise KeyboardInterrupt
            self.ran.append(task.__name__)
            yield task(job)


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words)).capitalize() + "."


def write_corpus(folder: Path, *, files: int = 4, documents: int = 12, seed: int = 0) -> list[str]:
    """Files of documents, a line each, with a duplicate in the last file; returns the different documents."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    texts = [[sentence(rng, rng.randint(3, 60)) for _ in range(documents)] for _ in range(files)]
    for number, of in enumerate(texts):
        extra = [texts[0][0]] if number == files - 1 else []
        lines = [json.dumps({"text": text}) for text in of + extra]
        (folder / f"{number}.jsonl").write_text("\n".join(lines) + "\n")
    return [text for of in texts for text in of]


def settings(corpus: Path, **changes: Any) -> DataConfig:
    fields: dict[str, Any] = {
        "paths": (str(corpus / "*.jsonl"),),
        "tokenizer": TokenizerConfig(vocab_size=300),
        "length": 32,
        "valid_fraction": 0.1,
        "shard_mb": 0.002,  # a part for each file
    }
    return DataConfig(**fields | changes)


def shards(data: PreparedData) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in data.folder.glob("*.arrow")}


def prepared(folder: Path, **changes: Any) -> PreparedData:
    """The corpus of ``folder`` prepared here, without Ray."""
    return prepare(settings(folder / "corpus", **changes), folder, progress=False, each=Serial())


def documents_of(data: PreparedData, split: Split) -> list[str]:
    """The texts between end-of-text tokens over all rows of a split; for rows that keep the order of the tokens."""
    texts = []
    reader = RowReader(data.folder, split)
    batch = reader.read(np.arange(len(reader)))
    current: list[int] = []
    for ids, length in zip(batch.ids_BL, batch.length_B.tolist(), strict=True):
        for token in ids[:length].tolist():
            if token == data.tokenizer.eos_id:
                texts.append(data.tokenizer.decode(current))
                current = []
            else:
                current.append(token)
    return texts


@pytest.mark.parametrize("packing", ["concat", "document"])
def test_every_different_document_is_in_the_rows_once(tmp_path: Path, packing: Any) -> None:
    texts = write_corpus(tmp_path / "corpus")
    data = prepared(tmp_path, packing=packing)
    train, valid = documents_of(data, "train"), documents_of(data, "valid")
    assert sorted(train + valid) == sorted(texts) and train and valid
    in_order = {text: place for place, text in enumerate(texts)}
    assert train == sorted(train, key=in_order.__getitem__), "documents stay in corpus order"
    assert not list(data.folder.glob("work")) and verify(data.folder) == []


@pytest.mark.parametrize("packing", ["concat", "document", "best_fit"])
def test_account_of_documents_and_tokens_closes(tmp_path: Path, packing: Any) -> None:
    texts = write_corpus(tmp_path / "corpus")
    data = prepared(tmp_path, packing=packing)
    manifest = data.manifest
    read, train, valid = manifest.read, manifest.train, manifest.valid
    assert (read.documents, read.duplicates, read.empty) == (len(texts) + 1, 1, 0)
    assert train.documents + valid.documents == read.documents - read.duplicates
    assert train.closes and valid.closes and train.dropped == valid.dropped == train.truncated == valid.truncated == 0
    ids = data.tokenizer.encode_batch([normalise(text) for text in texts])
    assert train.tokens + valid.tokens == sum(map(len, ids)) and train.eos + valid.eos == len(texts)
    for split, of in (("train", train), ("valid", valid)):
        reader = RowReader(data.folder, split)  # type: ignore[arg-type]
        assert len(reader) == of.rows
        assert int(reader.read(np.arange(of.rows)).length_B.sum()) == of.tokens_in_rows
    assert Manifest.load(data.folder) == manifest and len(manifest.shards_of("train")) == 4
    assert str(data.folder) in summary(data)


def test_tokenizer_is_trained_on_the_training_documents_alone(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    data = prepared(tmp_path)
    expected = train_tokenizer(iter(documents_of(data, "train")), "bpe", 300)
    assert expected.fingerprint == data.manifest.tokenizer == load_tokenizer(data.folder).fingerprint
    assert data.manifest.vocab_size == expected.vocab_size == 300


def test_given_tokenizer_is_used_wherever_it_lies(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    trained = prepared(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        trained.tokenizer.save(tmp_path / name)
    made = [
        prepare(settings(tmp_path / "corpus", tokenizer=TokenizerConfig(source=str(tmp_path / name))), tmp_path, each=Serial())
        for name in ("one", "two")
    ]
    assert [data.reused for data in made] == [False, True] and made[0].folder == made[1].folder != trained.folder
    assert shards(made[0]) == shards(trained)


def test_finished_data_is_found_again_and_other_settings_are_other_data(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    first = prepared(tmp_path)
    again = Serial()
    (first.folder / "work").mkdir()  # as a kill between the last two steps leaves it
    second = prepare(settings(tmp_path / "corpus", strict=True), tmp_path, progress=False, each=again)
    assert second.reused and second.folder == first.folder and second.manifest == first.manifest and again.ran == []
    assert not (first.folder / "work").exists()
    for changes in (
        {"length": 16},
        {"packing": "document"},
        {"valid_fraction": 0.2},
        {"tokenizer": TokenizerConfig(vocab_size=310)},
    ):
        other = prepared(tmp_path, **changes)
        assert other.folder != first.folder and not other.reused
    write_corpus(tmp_path / "corpus", seed=1)
    assert prepared(tmp_path).folder != first.folder


@pytest.mark.parametrize("die_at", range(8))
def test_killed_preparation_goes_on_where_it_stopped(tmp_path: Path, die_at: int) -> None:
    write_corpus(tmp_path / "corpus")
    config = settings(tmp_path / "corpus")
    whole = prepare(config, tmp_path / "whole", progress=False, each=Serial())
    with pytest.raises(KeyboardInterrupt):
        prepare(config, tmp_path / "killed", progress=False, each=Serial(die_at=die_at))
    with pytest.raises(FileNotFoundError, match="the preparation did not finish"):
        Manifest.load(tmp_path / "killed" / "data" / whole.folder.name)
    rest = Serial()
    resumed = prepare(config, tmp_path / "killed", progress=False, each=rest)
    assert rest.ran == [read_part.__name__] * max(0, 4 - die_at) + [pack_part.__name__] * min(4, 8 - die_at)
    assert shards(resumed) == shards(whole) and resumed.manifest == whole.manifest


def test_half_written_files_of_a_killed_preparation_are_cleared(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    config = settings(tmp_path / "corpus")
    with pytest.raises(KeyboardInterrupt):
        prepare(config, tmp_path, progress=False, each=Serial(die_at=5))
    folder = next(path for path in (tmp_path / "data").iterdir() if path.is_dir())
    (folder / ".writing-train-00001.arrow-0123").write_bytes(b"half")
    (folder / "part-00000.json").write_text('{"key": "ab')
    data = prepare(config, tmp_path, progress=False, each=Serial())
    assert not list(folder.glob(".writing-*")) and verify(data.folder) == []


def test_damaged_shard_alone_is_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_corpus(tmp_path / "corpus")
    config = settings(tmp_path / "corpus")
    data = prepare(config, tmp_path, progress=False, each=Serial())
    before = shards(data)
    path = data.folder / "train-00002.arrow"
    path.write_bytes(path.read_bytes()[:-64])
    work = Serial()
    healed = prepare(config, tmp_path, progress=False, each=work)
    assert shards(healed) == before and healed.manifest == data.manifest and not healed.reused
    assert work.ran == ["read_part"] * 4 + ["pack_part"]
    assert "train-00002.arrow was cut short" in capsys.readouterr().err


def test_damage_of_equal_size_is_found_once_the_damaged_file_is_deleted(tmp_path: Path) -> None:
    """Deleting one bad shard makes the next preparation check the hashes of the others."""
    write_corpus(tmp_path / "corpus")
    config = settings(tmp_path / "corpus")
    data = prepare(config, tmp_path, progress=False, each=Serial())
    before = shards(data)
    content = bytearray((data.folder / "train-00001.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    (data.folder / "train-00001.arrow").write_bytes(content)
    (data.folder / "train-00003.arrow").unlink()
    work = Serial()
    assert shards(prepare(config, tmp_path, progress=False, each=work)) == before
    assert work.ran.count("pack_part") == 2


def test_manifest_of_other_settings_is_refused_field_by_field(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    data = prepared(tmp_path)
    foreign = dataclasses.replace(data.manifest, data=dataclasses.replace(data.manifest.data, length=64, packing="document"))
    foreign.save(data.folder)
    with pytest.raises(ValueError, match=r'data\.length: 64 -> 32; data\.packing: "document" -> "concat"'):
        prepared(tmp_path)


def test_empty_parts_and_documents_are_allowed(tmp_path: Path) -> None:
    texts = write_corpus(tmp_path / "corpus")
    (tmp_path / "corpus" / "0a.jsonl").write_text('{"text": " \\n\\t "}\n{"text": ""}\n')
    (tmp_path / "corpus" / "0b.jsonl").write_text("")
    data = prepared(tmp_path)
    assert data.manifest.train.documents + data.manifest.valid.documents == len(texts)
    assert data.manifest.read.empty == 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ['{"text": "   "}', '{"text": ""}'],
            r"no text: .* 2 documents were empty.*; check data\.paths and data\.text_column",
        ),
        (['{"text": "the same"}'] * 5, "holds 5 documents, 1 different one"),
    ],
)
def test_corpus_without_two_documents_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "0.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path)


def test_unreadable_lines_are_counted_and_strict_refuses_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_corpus(tmp_path / "corpus")
    with (tmp_path / "corpus" / "1.jsonl").open("a") as file:
        file.write("{not json\n")
    data = prepared(tmp_path)
    assert data.manifest.read.skipped_lines == 1 and "skipped 0 unreadable files and 1 lines" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"0 unreadable files and 1 lines or documents left out, which data\.strict forbids"):
        prepared(tmp_path, strict=True)
    with pytest.raises(ValueError, match=r"1\.jsonl"):
        prepare(settings(tmp_path / "corpus", strict=True), tmp_path / "elsewhere", progress=False, each=Serial())


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"length": 1}, r"data\.length is 1"), ({"valid_fraction": 0.0}, r"data\.valid_fraction is 0")],
)
def test_settings_that_give_no_data_are_refused_before_reading(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_corpus(tmp_path / "corpus")
    with pytest.raises(ValueError, match=message):
        prepare(settings(tmp_path / "corpus", **changes), tmp_path / "storage", progress=False, each=Serial())
    assert not (tmp_path / "storage").exists()


def test_full_disk_is_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "corpus")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    work = Serial()
    with pytest.raises(ValueError, match="has 1 kB free, but the preparation needs about"):
        prepare(settings(tmp_path / "corpus"), tmp_path, progress=False, each=work)
    assert work.ran == []


def test_storage_that_nodes_do_not_share_is_refused(tmp_path: Path) -> None:
    def elsewhere(jobs: Sequence[Any], task: Callable[[Any], dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for job in jobs:
            statement = task(job)
            job.statement.unlink()
            yield statement

    write_corpus(tmp_path / "corpus")
    with pytest.raises(ValueError, match="choose a storage folder that all nodes share"):
        prepare(settings(tmp_path / "corpus"), tmp_path, progress=False, each=elsewhere)


def test_two_preparations_at_once_do_the_work_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_corpus(tmp_path / "corpus")
    started, go_on = threading.Event(), threading.Event()

    def slow(jobs: Sequence[Any], task: Callable[[Any], dict[str, Any]]) -> Iterator[dict[str, Any]]:
        started.set()
        assert go_on.wait(30)
        yield from map(task, jobs)

    second = Serial()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(prepare, settings(tmp_path / "corpus"), tmp_path, progress=False, each=slow)
        assert started.wait(30)
        other = pool.submit(prepare, settings(tmp_path / "corpus"), tmp_path, progress=False, each=second)
        while "another process is preparing" not in capsys.readouterr().err:
            time.sleep(0.01)
        go_on.set()
        assert not first.result(30).reused and other.result(30).reused and second.ran == []


def test_number_of_workers_does_not_change_a_byte(tmp_path: Path, ray_cluster: Any) -> None:
    write_corpus(tmp_path / "corpus", files=5, documents=30)
    one, two = (
        prepare(settings(tmp_path / "corpus"), tmp_path / str(workers), workers=workers, progress=False) for workers in (1, 2)
    )
    assert shards(one) == shards(two) and len(shards(one)) >= 6 and one.manifest == two.manifest
    with pytest.raises(ValueError, match=r"1\.jsonl"):
        (tmp_path / "corpus" / "1.jsonl").write_text("{not json\n")
        prepare(settings(tmp_path / "corpus", strict=True), tmp_path, progress=False)
