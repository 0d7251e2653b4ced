"""jobs/track.py list: the runs of a storage with state, steps, loss, and the command that goes on with each."""

import os
import shlex
from pathlib import Path

import pytest
import track

from elf_platform.commands import job_command
from elf_platform.config_io import write_config
from elf_platform.lock import exclusive
from elf_platform.lookup import resolve
from elf_platform.recipes import RECIPES
from elf_platform.tracking import RunHandle, start_tracker


def run(storage: Path, name: str, *, points: int, end: str = "", finished: bool = False) -> Path:
    folder = storage / "runs" / name
    folder.mkdir(parents=True)
    write_config(folder / "config.json", RECIPES["tiny"](), recipe="tiny", code_version="0")
    tracker = start_tracker(RunHandle(kind="jsonl"), folder)
    for step in range(points):
        tracker.log(step, {"train/loss": 9.0 - step} | ({"valid/loss": 4.5} if step == 2 else {}))
    tracker.close()
    RunHandle(kind="jsonl", end=end).save(folder)
    if finished:
        (folder / "summary.json").write_text("{}")
    return folder


def test_the_runs_of_a_storage_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELF_HOME", str(tmp_path))
    assert track.main(["list"]) == 0
    assert "there are no runs in" in capsys.readouterr().out
    states = {"done": "finished", "[red]a b[x]": "stopped", "fell": "failed", "killed": "interrupted", "new": "not started"}
    for number, (name, state) in enumerate(states.items()):
        ends = {"stopped": "KILLED", "failed": "FAILED"}
        folder = run(tmp_path, name, points=0 if name == "new" else number + 1, end=ends.get(state, ""), finished=state == "finished")
        for path in folder.iterdir():
            os.utime(path, (1e9 - 1000 * number, 1e9 - 1000 * number))
    held = run(tmp_path, "busy", points=1)
    with exclusive(held, "the run"), exclusive(tmp_path / "runs" / "young", "a run that has its encoder trained"):
        assert track.main(["list", "--storage", str(tmp_path)]) == 0
        with pytest.raises(FileNotFoundError, match="the run young, which is starting"):
            resolve("young", "artefact", storage=tmp_path)
    said = capsys.readouterr().out
    assert [line.split()[1] for line in said.splitlines() if line.split()[:1] == ["young"]] == ["starting"]
    lines = said.splitlines()
    order = [next(i for i, line in enumerate(lines) if line.startswith(f"  {name} ")) for name in states]
    assert order == sorted(order), "the last changed first"
    for name, state in states.items():
        assert state in lines[order[list(states).index(name)]]
    assert "4.5 (validation)" in lines[order[2]] and "8 (training)" in lines[order[1]]
    assert "running" in next(line for line in lines if line.startswith("  busy "))
    commands = [line.strip() for line in lines if "pretrain" in line]
    assert job_command("pretrain", "--extend", tmp_path / "runs" / "[red]a b[x]") in commands
    assert {Path(shlex.split(command)[-1]).name for command in commands} == {name for name in states if name != "done"}


def test_a_run_that_is_being_extended_is_not_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tmp_path, "longer", points=2, end="KILLED", finished=True)
    for steps, state in ((160.0, "stopped"), (320.0, "finished")):  # of 320
        (folder / "summary.json").write_text(f'{{"steps": {steps}}}')
        assert track.main(["list", "--storage", str(tmp_path)]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  longer ")]
        assert state in line


def test_words_that_do_not_fit_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["list", "a"], ["status"], ["flush"], ["flush", "a", "--storage", "b"]):
        with pytest.raises(SystemExit) as stop:
            track.main(words)
        assert stop.value.code == 2
    assert "list takes no RUN" in capsys.readouterr().err
