"""Commands that are shown: whatever shell is there, and whatever stands in names and paths, they mean what they say."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elf_platform.commands import CALLED_FROM, as_typed, job_command, module_command
from elf_platform.tracking import RunHandle, ui_command

ROOT = Path(__file__).parents[2]
AWKWARD = ("[red]x[/]", "a b", "it's", 'say "no"', "$HOME;ls", ":smile:", "Überfluß 見", "-x", "~", "new\nline", "[link=x]y")
SHOW = "from elf_platform.commands import job_command; print(job_command('track', '--help'))"


ANY = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(st.lists(st.one_of(st.sampled_from(AWKWARD), ANY), max_size=4))
def test_words_come_back_from_the_shell_as_they_were(words: list[str]) -> None:
    assert shlex.split(job_command("sample", *words))[2:] == words
    uri = "sqlite:////" + "/".join(words)
    handle = RunHandle(kind="mlflow", uri=uri)
    assert shlex.split(ui_command(handle))[-1] == uri


PLACES = ("checkout", "elsewhere", "checkout, environment entered", "started by make -C")


def shown_there(where: str, tmp_path: Path) -> tuple[str, Path, dict[str, str]]:
    """A command as a process shows it, the directory of its shell, and the shell's environment."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    if "entered" in where:
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    folder = ROOT if "checkout" in where else tmp_path
    asked_in = folder
    if "make" in where:
        environment[CALLED_FROM], asked_in = str(tmp_path), ROOT
    shown = subprocess.run([sys.executable, "-c", SHOW], cwd=asked_in, env=environment, capture_output=True, text=True, check=True).stdout
    del environment["PYTHONPATH"]  # what that process was given, and the user's shell does not have
    return shown, folder, environment


@pytest.mark.parametrize("where", PLACES)
def test_a_shown_command_names_what_the_shell_finds(where: str, tmp_path: Path) -> None:
    """The interpreter by its path, or as python where PATH leads to it; the job relative to the directory, or absolute."""
    shown, folder, _ = shown_there(where, tmp_path)
    program, job, _ = shlex.split(shown)
    assert (program == "python") == ("entered" in where)
    assert (job == "jobs/track.py") == ("checkout" in where) and (folder / job).samefile(ROOT / "jobs/track.py")


@pytest.mark.slow
@pytest.mark.parametrize("where", PLACES)
def test_a_shown_command_runs_in_the_shell_that_is_there(where: str, tmp_path: Path) -> None:
    shown, folder, environment = shown_there(where, tmp_path)
    done = subprocess.run(shown, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "flush" in done.stdout, done.stderr


def test_commands_of_a_page_hold_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    program, job, *rest = shlex.split(job_command("sample", "a b", anywhere=True))
    assert Path(program).is_absolute() and Path(job) == ROOT / "jobs/sample.py" and rest == ["a b"]
    assert shlex.split(module_command("mlflow", "ui", anywhere=True))[1:] == ["-m", "mlflow", "ui"]


def test_commands_within_sentences_are_those_of_the_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert as_typed("run .venv/bin/python jobs/track.py") == "run .venv/bin/python jobs/track.py", "typed already"
    said = as_typed("score it: python jobs/evaluate.py runs/a, or look: python jobs/track.py list")
    assert said == f"score it: {job_command('evaluate')} runs/a, or look: {job_command('track')} list"
    assert str(ROOT / "jobs/evaluate.py") in said
    assert as_typed("missing; pip install 'x[y]'") == f"missing; {module_command('pip', 'install')} 'x[y]'"
    for folder in (tmp_path, ROOT):
        monkeypatch.chdir(folder)
        once = as_typed("python jobs/track.py list; pip install x")
        assert as_typed(once) == once, "what is typed already stays"
