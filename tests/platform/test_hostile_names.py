"""Folders that came from elsewhere name files: whoever reads such a name reads nothing outside the folder, and says so."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sample_folders import fill, task_of
from small_artefact import small_artefact

from elf.artefact import load_artefact
from elf.files import inside
from elf.optim import ParamSlice
from elf_platform.data.shards import ShardRecord, size_problem
from elf_platform.sampling.folder import MANIFEST, read_samples
from elf_platform.train.checkpoint import CheckpointReader, commit, latest, pieces_of, problem_with, write_rank_file, writing_folder

NAMES = ("../outside/secret", "/etc/hostname", "link", "linked/secret", ".", "a/../..", "a\0b")


@pytest.fixture
def hostile(tmp_path: Path) -> Callable[[Path], None]:
    """Adds the links to a folder that ``NAMES`` speak of, and what they lead to."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")

    def links(folder: Path) -> None:
        (folder / "link").symlink_to(outside / "secret")
        (folder / "linked").symlink_to(outside)

    return links


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_out_is_refused(hostile: Callable[[Path], None], tmp_path: Path, name: str) -> None:
    (folder := tmp_path / "folder").mkdir()
    hostile(folder)
    with pytest.raises(ValueError, match="leads out of it"):
        inside(folder, name)


def test_names_within_are_files_of_the_folder(tmp_path: Path, hostile: Callable[[Path], None]) -> None:
    (folder := tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "way").symlink_to(folder)
    hostile(folder)
    (folder / "own").symlink_to(folder / "a")
    for place in (folder, tmp_path / "way"):
        for name in ("a", "a/b", "not yet", "..a", "a/../b", "own", "ünï ?%"):
            assert inside(place, name) == place / name
    assert inside(folder, "link", links=True) == folder / "link", "as in the cache of a hub, where what it holds is checked"


@pytest.mark.parametrize("name", NAMES)
def test_shards(hostile: Callable[[Path], None], tmp_path: Path, name: str) -> None:
    (folder := tmp_path / "data").mkdir()
    hostile(folder)
    with pytest.raises(ValueError, match="leads out of it"):
        size_problem(folder, ShardRecord(name=name, split="train", rows=1, bytes=6, sha256="0"))


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints(hostile: Callable[[Path], None], tmp_path: Path, name: str) -> None:
    value = torch.arange(3.0)
    writing = writing_folder(tmp_path, 1, "test")
    writing.mkdir()
    slices = [ParamSlice(name="a", shape=(3,), start=0, stop=3, value=value)]
    files = [write_rank_file(writing, 0, {"weight/a": value}, pieces_of(slices))]
    folder = commit(tmp_path, writing, 1, {"counters": {"step": 1}, "time_counts": []}, files)
    checkpoint = latest(tmp_path)
    assert checkpoint is not None and problem_with(folder) is None
    hostile(folder)
    edit(folder / "COMMITTED", lambda hashes: hashes.update({name: "0" * 64}))
    assert "leads out of it" in str(problem_with(folder))
    checkpoint.state["files"][0]["name"] = name
    with pytest.raises(ValueError, match="leads out of it"):
        CheckpointReader(checkpoint).read("weight", "a", 0, 3)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    small_artefact(folder / "artefact")
    fill(task_of(folder / "artefact", count=2, compute_batch=2), folder / "samples")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_samples_and_artefacts(hostile: Callable[[Path], None], made: Path, tmp_path: Path, name: str) -> None:
    for part in ("samples", "artefact"):
        shutil.copytree(made / part, tmp_path / part)
        hostile(tmp_path / part)
    for change in (lambda plain: plain["parts"][0].update(file=name), lambda plain: plain["jsonl"].update(file=name)):
        edit(tmp_path / "samples" / MANIFEST, change)
        with pytest.raises(ValueError, match="leads out of it"):
            read_samples(tmp_path / "samples")
        shutil.copy(made / "samples" / MANIFEST, tmp_path / "samples" / MANIFEST)
    edit(tmp_path / "artefact" / "config.json", lambda plain: plain["files"].update({name: "0" * 64}))
    with pytest.raises(ValueError, match="leads out of it|the file was altered or damaged"):  # a link is read, but never as something else
        load_artefact(tmp_path / "artefact")
