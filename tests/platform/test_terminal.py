"""Words on the terminal: text is text, and no terminal, pipe or reader ends a job."""

import os
import pty
import shlex
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.table import Table

from elf_platform.cli import error_paragraph
from elf_platform.data.progress import ProgressLine
from elf_platform.terminal import Terminal, harmless, say

ROOT = Path(__file__).parents[2]
NAMES = ("[red]x[/]", "[/nothing]", "[bold", ":smile:", "a [link=b]c[/link] d", "C:\\[x]", "{brace} %s", "\\[escaped]")


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = StringIO()
    table = Table(box=None, show_header=False)
    table.add_row(name, name)
    terminal = Terminal(out, width=200)
    terminal.print(name)
    terminal.print(table)
    terminal.rule(name)
    assert out.getvalue().count(name) == 4
    say(name)
    with ProgressLine(name, 1, unit=name) as line:
        line.advance(1)
    said = capsys.readouterr().err
    assert said.startswith(f"{name}\n{name}: 1.0 of 1.0 {name}")


def test_control_characters_are_shown_and_have_no_effect(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b[31mred\x07\r\x9b2J\x7f\tb\nc"
    shown = "a\\x1b[31mred\\x07\\r\\x9b2J\\x7f\tb\nc"
    assert harmless(evil) == shown and harmless("é 見 😀 \u200d") == "é 見 😀 \u200d"
    out = StringIO()
    table = Table(box=None, show_header=False)
    table.add_row(evil)
    Terminal(out, width=200).print(evil)
    Terminal(out, width=200).print(table)
    say(evil)
    for text in (out.getvalue(), capsys.readouterr().err):
        assert "\\x1b[31mred\\x07" in text and text.translate({ord("\n"): " "}).isprintable()


def test_a_command_in_an_error_stays_on_one_line() -> None:
    command = "    python -c pass " + "word " * 60 + "end"
    said = error_paragraph(ValueError(f"this cannot be. {'A long sentence. ' * 20}Run\n{command}\ninstead")).splitlines()
    assert command in said and said[-1] == "instead" and max(map(len, said[:-2])) <= 100


WORDS = """
import sys
sys.path.insert(0, sys.argv[1])
from elf_platform.terminal import Terminal, open_streams, say
open_streams()
say("begun: Zürich 見 \\udcff")
Terminal().print("Zürich 見 \\udcff \\ud800")
print("done")
"""
PROGRAM = [sys.executable, "-c", WORDS, str(ROOT / "platform")]
LINES = """
import sys
sys.path[:0] = sys.argv[1:]
from elf_platform.cli import run_main
from elf_platform.terminal import say
def main(argv):
    for i in range(20000):
        print("line", i)
        if i % 1000 == 0:
            say("still there")
run_main(main)
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_cannot_show_a_character_shows_another(encoding: str) -> None:
    leader, follower = pty.openpty()
    environment = os.environ | {"PYTHONIOENCODING": encoding, "TERM": "dumb", "COLUMNS": "1"}
    process = subprocess.Popen(PROGRAM, env=environment, stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    try:
        while part := os.read(leader, 65536):
            shown += part
    except OSError:  # the other end was closed
        pass
    os.close(leader)
    assert process.wait() == 0, shown
    assert "Zürich 見 ".encode(encoding, errors="replace") + b"\xff ?" in shown and b"done" in shown


def test_pipes_get_utf8() -> None:
    done = subprocess.run(PROGRAM, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert done.returncode == 0 and done.stdout == "Zürich 見 ".encode() + b"\xff ?\ndone\n"


def test_a_reader_that_goes_is_no_error(tmp_path: Path) -> None:
    """As in ``--help | head``: no traceback, and the status of success, with standard error there or gone as well."""
    command = shlex.join([sys.executable, "-c", LINES, str(ROOT / "platform"), str(ROOT / "model")])
    for both in ("", " 2>&1"):
        shell = f"{{ {command}{both}; echo status $? >&3; }} 3>'{tmp_path}/status' | head -n 1"
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
        assert "Traceback" not in done.stderr and "Broken" not in done.stderr, done.stderr
        assert (tmp_path / "status").read_text() == "status 0\n"


def test_help_ends_on_a_terminal_of_one_column() -> None:
    command = [sys.executable, str(ROOT / "jobs/pretrain.py"), "--help"]
    done = subprocess.run(command, env=os.environ | {"COLUMNS": "1"}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and len(done.stdout) > 2000
