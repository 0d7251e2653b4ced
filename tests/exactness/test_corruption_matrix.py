"""Corruption matrix: a damaged checkpoint is passed over for the last good one and said so; with none left, nothing starts silently.

The real job on a real cluster; what the format itself refuses is tested in tests/platform/train/test_checkpoint.py.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pretraining import Pretraining
from tables import Table

pytestmark = pytest.mark.slow

WORDS = "--train.workers 1 --train.threads 1 --train.steps 30 --train.checkpoint_every 10 --train.keep 3"
MORE = WORDS.replace("--train.steps 30", "--train.steps 40")


def truncate(folder: Path) -> None:
    path = folder / "rank-00000.safetensors"
    os.truncate(path, path.stat().st_size // 2)


def flip_a_byte(folder: Path) -> None:
    path = folder / "rank-00000.safetensors"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 1000)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0x10]))


def remove_the_marker(folder: Path) -> None:
    (folder / "COMMITTED").unlink()


def remove_a_file(folder: Path) -> None:
    (folder / "state.json").unlink()


DAMAGES: list[Callable[[Path], None]] = [truncate, flip_a_byte, remove_the_marker, remove_a_file]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_text: Path) -> Pretraining:
    """A finished run with checkpoints at 10, 20 and 30."""
    run = Pretraining(tmp_path_factory.mktemp("corruption"), tiny_text, "trained", WORDS)
    run.finish()
    return run


def copy_of(trained: Pretraining, text: Path, name: str) -> Pretraining:
    """The run as it was just after its last checkpoint, under another name."""
    run = Pretraining(trained.home, text, name, WORDS)
    shutil.copytree(trained.folder / "checkpoints", run.folder / "checkpoints")
    config = json.loads((trained.folder / "config.json").read_text())
    (run.folder / "config.json").write_text(json.dumps(config | {"name": name}))
    return run


@pytest.mark.parametrize(
    "damage",
    [pytest.param(damage, marks=[] if damage in (flip_a_byte, remove_the_marker) else pytest.mark.full) for damage in DAMAGES],
    ids=lambda damage: damage.__name__.replace("_", " "),
)
def test_a_damaged_newest_checkpoint_is_passed_over(
    damage: Callable[[Path], None], trained: Pretraining, tiny_text: Path, tables: dict[str, Table]
) -> None:
    run = copy_of(trained, tiny_text, damage.__name__)
    damage(run.folder / "checkpoints/step-00000030")
    run.finish()
    (passed,) = run.events("passed_over")
    (attempt,) = run.events("attempt")
    assert "step-00000030" in passed["text"] and "Passing over" in run.said()
    assert attempt["step"] == 20
    assert run.final() == trained.final()
    kept = sorted(path.name for path in (run.folder / "checkpoints").iterdir())
    assert kept == ["step-00000010", "step-00000020", "step-00000030"]
    tables["corruption"].add((damage.__name__.replace("_", " "), "the newest of three"), "passed over, said so; went on from step 20", ())


def test_with_every_checkpoint_damaged_the_job_ends_at_once_with_an_error(
    trained: Pretraining, tiny_text: Path, tables: dict[str, Table]
) -> None:
    run = copy_of(trained, tiny_text, "all-damaged")
    for damage, folder in zip(DAMAGES, sorted((run.folder / "checkpoints").iterdir()), strict=False):
        damage(folder)
    run.start()
    assert run.wait() == 2
    said = " ".join(run.said().split())
    assert "none that can be resumed from" in said and "step-00000010" in said and "--name" in said and "Traceback" not in said
    assert run.events("attempt") == [], "it trained, or tried again, on nothing"
    assert len(list((run.folder / "checkpoints").iterdir())) == 3
    tables["corruption"].add(("truncate, flip a byte, remove the marker", "all three"), "exit status 2, one paragraph, no retry", ())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of 16 MB of its own; None where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_during_a_save(
    small_disk: Path | None, trained: Pretraining, tiny_text: Path, tables: dict[str, Table]
) -> None:
    """In the middle the run says so and goes on; once there is room the next save is a good one.

    tests/platform/train/test_loop.py does the same with a limit on the size of files, which every user may set."""
    if small_disk is None:
        tables["corruption"].add(("fill the disk", "not tried"), "this user may not mount a file system", ())
        return
    run = Pretraining(trained.home, tiny_text, "full-disk", WORDS.replace("--train.steps 30", "--train.steps 400"))
    run.folder.mkdir(parents=True)
    (run.folder / "checkpoints").symlink_to(small_disk)
    ballast = small_disk / "ballast"
    run.start()
    try:
        run.until(lambda: (small_disk / "step-00000010/COMMITTED").is_file())
        free = shutil.disk_usage(small_disk).free
        ballast.write_bytes(b"\0" * (free - 300_000))
        run.until(lambda: len(run.events("checkpoint")) > 0)
        failed = run.events("checkpoint")[0]
        ballast.unlink()
        assert run.wait() == 0, run.said()[-3000:]
    finally:
        run.end()
    assert "could not be written" in failed["text"] and "The last good one is kept" in failed["text"]
    assert len(run.events("attempt")) == 1 and run.final()["step"] == "400"
    tables["corruption"].add(("fill the disk", f"the save of step {failed['step']}"), "said so, went on; the next save is good", ())
