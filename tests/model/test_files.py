"""Files, lines and folders that are whole or not there, also after a kill, a full disk and among several writers."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elf.files import (
    REPLACED,
    TEMPORARY,
    append_lines,
    clear_leftovers,
    committing,
    committing_folder,
    discard,
    publish,
    temporary_folder,
    write_text,
)

ROOT = Path(__file__).parents[2]


class Full(Exception):
    pass


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writes beyond ``size`` fail as on a full disk: what fits is written, the rest is not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def python(program: str, *words: object) -> subprocess.Popen[str]:
    command, env = [sys.executable, "-c", program, *map(str, words)], os.environ | {"PYTHONPATH": str(ROOT / "model")}
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@given(whole=st.lists(st.text(alphabet="ab\u00e9", max_size=9), max_size=4), torn=st.binary(max_size=9), times=st.integers(1, 3))
def test_lines_follow_whole_lines(tmp_path_factory: pytest.TempPathFactory, whole: list[str], torn: bytes, times: int) -> None:
    path = tmp_path_factory.mktemp("lines") / "a/b.jsonl"
    append_lines(path, whole)
    torn = torn.replace(b"\n", b"")
    with path.open("ab") as file:
        file.write(torn)
    for _ in range(times):
        append_lines(path, ["x", "y"], durable=times == 2)
    assert path.read_bytes() == "".join(f"{line}\n" for line in whole).encode() + b"x\ny\n" * times


def test_a_torn_line_longer_than_a_block_goes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one\n" + b"z" * 200_000)
    append_lines(path, ["two"])
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_full_disk_takes_all_of_an_append_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    append_lines(path, ["first"])
    with largest_file(5000), pytest.raises(OSError):
        append_lines(path, ["w" * 1000 for _ in range(9)])
    assert path.read_text() == "first\n"
    append_lines(path, ["second"])
    assert path.read_text() == "first\nsecond\n"


def test_several_processes_append_whole_lines(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from elf.files import append_lines\n"
        "for i in range(100): append_lines(Path(sys.argv[1]), [sys.argv[2] * 9000, sys.argv[2] * 9000])"
    )
    writers = [python(program, tmp_path / "a", letter) for letter in "xyz"]
    assert [w.wait() for w in writers] == [0, 0, 0]
    lines = (tmp_path / "a").read_text().splitlines()
    assert len(lines) == 600 and {(line[0], len(line), len(set(line))) for line in lines} == {(c, 9000, 1) for c in "xyz"}
    assert all(a == b for a, b in zip(lines[::2], lines[1::2], strict=True)), "an append was divided"


def test_a_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_text(path, "old")
    with pytest.raises(Full), committing(path) as temporary:
        temporary.write_text("half")
        raise Full
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    write_text(path, "new", durable=False)
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    folder = tmp_path / "deep/folder"
    for text in ("old", "new"):
        with committing_folder(folder) as temporary:
            (temporary / "sub").mkdir()
            (temporary / "sub/file").write_text(text)
        assert (folder / "sub/file").read_text() == text and list(folder.parent.iterdir()) == [folder]
    with pytest.raises(Full), committing_folder(folder) as temporary:
        (temporary / "file").write_text("half")
        raise Full
    assert (folder / "sub/file").read_text() == "new" and list(folder.parent.iterdir()) == [folder]
    discard(folder)
    assert list(folder.parent.iterdir()) == []


def test_a_folder_that_cannot_take_its_name_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with committing_folder(tmp_path / "folder") as temporary:
        (temporary / "file").write_text("old")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.startswith(TEMPORARY):
            raise OSError("the storage refuses")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="refuses"), temporary_folder(tmp_path / "folder") as temporary:
        publish(temporary, tmp_path / "folder")
    assert (tmp_path / "folder/file").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_writer_left_goes_and_what_a_living_one_holds_stays(tmp_path: Path) -> None:
    """Told by a lock: the writers' process numbers are never asked."""
    program = (
        "import sys; from pathlib import Path; from elf.files import committing, committing_folder\n"
        "root = Path(sys.argv[1])\n"
        "with committing(root / 'file') as f, committing_folder(root / 'folder') as d:\n"
        "    f.write_text('half'); (d / 'part').write_text('half'); print('writing', flush=True); sys.stdin.read()"
    )
    killed, living = python(program, tmp_path), python(program, tmp_path)
    for process in (killed, living):
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
    (tmp_path / f"{REPLACED}folder-0123456789ab").mkdir()
    assert len(list(tmp_path.glob(".*"))) == 5
    killed.kill()
    killed.wait()
    clear_leftovers(tmp_path, "another")
    assert len(list(tmp_path.glob(".*"))) == 5
    with committing_folder(tmp_path / "folder") as temporary:  # the next writer of that name
        (temporary / "part").write_text("of the next writer")
    assert sorted(path.name.rsplit("-", 1)[0] for path in tmp_path.glob(".*")) == [f"{TEMPORARY}file"] * 2 + [f"{TEMPORARY}folder"]
    clear_leftovers(tmp_path)
    assert sorted(path.name.rsplit("-", 1)[0] for path in tmp_path.glob(".*")) == [f"{TEMPORARY}file", f"{TEMPORARY}folder"]
    living.communicate("", timeout=30)
    assert living.returncode == 0 and sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "folder/part").read_text() == "half" and json.dumps((tmp_path / "file").read_text()) == '"half"'


def test_leftovers_of_a_name_in_brackets_go(tmp_path: Path) -> None:
    (tmp_path / f"{TEMPORARY}a[b]-0123456789ab").mkdir()
    clear_leftovers(tmp_path, "a[b]")
    assert list(tmp_path.iterdir()) == []
