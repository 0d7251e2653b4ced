"""What paths name and nobody reads is counted by reason, shown, and refused under strict; nothing is dropped without a word."""

import json
import os
from pathlib import Path

import pytest

from elf_platform.config import DataConfig, TokenizerConfig
from elf_platform.data.corpora import Corpus, resolve
from elf_platform.data.inspect_data import inspect, verify
from elf_platform.data.prepare import prepare, summary
from elf_platform.data.selection import TWICE, select
from elf_platform.data.tasks import Statement


def here(jobs: list[object], task: object) -> list[Statement]:
    return [task(job) for job in jobs]  # type: ignore[operator]


def of(*paths: Path | str, strict: bool = False) -> Corpus:
    return resolve(DataConfig(paths=tuple(map(str, paths)), strict=strict))


def left(corpus: Corpus) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Count and examples by the first words of the reason."""
    return {" ".join(one.reason.split()[:4]): (one.count, one.examples) for one in corpus.left_out}


def fill(folder: Path) -> Path:
    """A corpus of one file, and one of each thing that nobody reads."""
    folder.mkdir()
    (folder / "a.txt").write_text("\n\n".join(f"document {i} of words" for i in range(60)))
    (folder / "e.md").write_text("MARK text that a user wants too " * 20)
    (folder / "README").write_text("what it is")
    (folder / "b.parquet").touch()
    (folder / "c.jsonl.gz").touch()
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "h.txt").write_text("hidden")
    (folder / "dangling.txt").symlink_to(folder / "gone.txt")
    os.mkfifo(folder / "pipe.txt")
    (folder / os.fsdecode(b"caf\xe9.txt")).write_text("latin name")
    (folder / "state.json").write_text("{}")
    return folder


EVERYTHING = {
    "hidden": (2, (".DS_Store", ".hidden")), "of no known type": (2, ("README", "e.md")),
    "of 0 bytes, which": (2, ("b.parquet", "c.jsonl.gz")), "links that lead nowhere": (1, ("dangling.txt",)),
    "no regular files": (1, ("pipe.txt",)), "with names that are": (1, ("caf\\udce9.txt",)),
    "of .json, which often": (1, ("state.json",)),
}


def test_everything_in_a_folder_that_is_not_read_is_counted_by_reason(tmp_path: Path) -> None:
    corpus = of(fill(tmp_path / "data"))
    assert [part.uri for part in corpus.parts] == [str(tmp_path / "data" / "a.txt")]
    assert left(corpus) == EVERYTHING
    with pytest.raises(ValueError, match=r"left out 2 hidden \(.DS_Store, .hidden\).*2 of no known type \(README, e.md\).*data.strict"):
        of(tmp_path / "data", strict=True)
    of(tmp_path / "data" / "a.t*", strict=True)


def test_globs_count_what_they_match_and_nobody_reads(tmp_path: Path) -> None:
    folder = fill(tmp_path / "data")
    (folder / "sub").mkdir()
    (folder / "sub" / "s.txt").write_text("below")
    visible = {reason: count for reason, count in EVERYTHING.items() if reason != "hidden"}
    assert left(of(folder / "*")) == visible | {"folders that the pattern": (1, ("sub",))}
    assert left(of(folder / "**/*")) == visible, "a folder on the way to files is read"
    assert left(of(folder / "*", folder / "sub")) == visible, "and so is one that another path names"
    hidden = {"folders that the pattern": (1, (".hidden",)), "of no known type": (1, (".DS_Store",))}
    (folder / ".named.txt").write_text("hidden, but named")
    assert left(of(folder / ".*", folder / "a.txt")) == hidden
    assert left(of(folder / "a.txt", folder / "*.txt", folder / "a.*"))["named more than once,"] == (1, ("a.txt",))


def test_remote_folders_and_globs_count_the_same(tmp_path: Path) -> None:
    for name in ("a.txt", "e.md", "sub/s.txt", ".h/x.txt", "z.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if name[0] == "z" else "text")
    uri = f"mock://{tmp_path}"
    reasons = {"hidden": 1, "of no known type": 1, "of 0 bytes, which": 1}

    def counts(pattern: str) -> dict[str, int]:
        return {" ".join(one.reason.split()[:4]): one.count for one in select([pattern]).left_out}

    with pytest.MonkeyPatch.context() as patch:
        import pyarrow.fs as pafs

        patch.setattr("elf_platform.data.selection.open_filesystem", lambda uri: (pafs.LocalFileSystem(), ""))
        assert counts(uri) == reasons
        assert counts(f"{uri}/*") == {"of no known type": 1, "of 0 bytes, which": 1, "folders that the pattern": 1}


@pytest.mark.parametrize("name", ["b.parquet", "b.arrow", "b.txt.gz", "b.txt.zst", "e.md"])
def test_a_path_of_which_nothing_can_be_read_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    why = "of no known type" if name == "e.md" else "of 0 bytes"
    for path in (tmp_path, tmp_path / name, tmp_path / "*"):
        with pytest.raises(ValueError, match=rf"no file there can be read \(left out 1 {why}.*{name}"):
            of(path)


def test_a_link_back_is_followed_once_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert left(of(tmp_path)) == {"folders that a link": (1, ("loop",))}
    found = of(tmp_path / "**" / "*.txt")
    assert [name for name, _ in found.sources] == ["a.txt"] and {one.reason for one in found.left_out} == {TWICE}


def test_a_folder_that_may_not_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)  # tests may run as root, who may list every folder
    with pytest.raises(PermissionError, match="locked"):
        of(tmp_path)


def test_the_manifest_the_summary_and_inspect_say_what_was_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fill(tmp_path / "data")
    config = DataConfig(paths=(str(folder),), tokenizer=TokenizerConfig(vocab_size=270), length=16, valid_fraction=0.3)
    data = prepare(config, tmp_path / "storage", progress=False, each=here)  # type: ignore[arg-type]
    assert {one.reason: one.count for one in data.manifest.read.left_out} == {one.reason: one.count for one in of(folder).left_out}
    line = "2 hidden (.DS_Store, .hidden); 1 links that lead nowhere (dangling.txt)"
    assert line in capsys.readouterr().err and line in summary(data) and line in inspect(data.folder)
    assert verify(data.folder) == []
    (folder / "e.md").unlink()
    again = prepare(config, tmp_path / "storage", progress=False, each=here)  # type: ignore[arg-type]
    assert again.reused and again.manifest.content_hash == data.manifest.content_hash, "what is not read is no part of the data"
    assert "left_out" in json.loads((data.folder / "manifest.json").read_text())["read"]
