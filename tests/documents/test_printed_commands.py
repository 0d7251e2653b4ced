"""The commands of the README and of the summary, exactly as they are printed, in a fresh shell in a fresh checkout.

What stands in: the recipes are small (``support/small_recipes``), the virtual environment is this Python's, linked under the name that
make gives it, and the texts are made here. Blocks whose commands need a cluster, a cloud or the hub are marked so in the README
(``bash cluster``); of these every Python command is held to its settings by --print or --help."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "tests/support/small_recipes"
BLOCK = re.compile(r"^```bash *([a-z]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
WITHIN_S = 2000
WORDS = ("the", "river", "a", "lamp", "my", "neighbour", "old", "clock", "every", "letter", "harbour", "kite", "baker", "carries")


def commands(kind: str) -> list[str]:
    """The commands of the README's blocks of a kind, without comments, continued lines joined."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = "".join(block for found, block in BLOCK.findall(text) if found == kind).replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r" +#.*", "", line).strip() for line in lines) if line]


def sentence(i: int) -> str:
    return " ".join(WORDS[(i * 7 + j * (1 + i % 5)) % len(WORDS)] for j in range(5 + i % 9))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a clone holds, with the environment that make would have installed, and the user's texts in it."""
    root = tmp_path_factory.mktemp("fresh") / "clone"
    for folder in ("jobs", "platform", "model", "docs", "tests/contract"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for file in ("Makefile", "pyproject.toml", "runtime-env.yaml", "README.md", "cluster.yaml"):
        shutil.copy(ROOT / file, root)
    venv, own = root / ".venv", Path(sys.prefix)
    (venv / "bin").mkdir(parents=True)
    config = own / "pyvenv.cfg"
    text = config.read_text() if config.is_file() else f"home = {Path(sys.base_prefix) / 'bin'}\ninclude-system-site-packages = true\n"
    (venv / "pyvenv.cfg").write_text(text)
    (venv / "lib").symlink_to(own / "lib")
    for program in (own / "bin").iterdir():
        (venv / "bin" / program.name).symlink_to(program)
    activate = (own / "bin/activate").read_text().replace(str(own), str(venv)) if (own / "bin/activate").is_file() else (
        f'export PATH="{venv}/bin:$PATH"\n'
    )
    (venv / "bin/activate").unlink(missing_ok=True)
    (venv / "bin/activate").write_text(activate)
    for name in (".installed", ".installed-test"):
        (venv / name).touch()
    (root / "corpus").mkdir()
    (root / "corpus/one.txt").write_text("\n\n".join(sentence(i) for i in range(300)))
    (root / "corpus/two.txt").write_text("\n\n".join(sentence(i) for i in range(300, 500)))
    (root / "pairs.tsv").write_text("de\ten\n" + "".join(f"{sentence(i).upper()}\t{sentence(i)}\n" for i in range(300)))
    (root / "deu.txt").write_text("".join(f"{sentence(i)}\t{sentence(i).upper()}\tCC-BY {i}\n" for i in range(300)))
    (root / "articles.jsonl").write_text(
        "".join(f'{{"article": "{sentence(i)} {sentence(i + 1)}", "summary": "{sentence(i)}"}}\n' for i in range(300))
    )
    return root


def shell(root: Path, script: str, *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a script as a login of a new user would: nothing of this process's environment but what is named here."""
    home = root.parent / "home"
    home.mkdir(exist_ok=True)
    environment = {"PATH": os.defpath, "HOME": str(home), "PYTHONPATH": str(SMALL), "LANG": "C.UTF-8", "COLUMNS": "120"}
    environment |= {name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ}
    return subprocess.run(
        ["bash", "-c", script], cwd=cwd or root, env=environment, capture_output=True, text=True, timeout=WITHIN_S,
        stdin=subprocess.DEVNULL,
    )


def run_all(root: Path, lines: list[str], *, cwd: Path | None = None) -> None:
    """One shell runs the lines one after another, until one fails."""
    marked = "\n".join(f"echo {shlex.quote(f'@@ {line}')} >&2\n{line} || exit 1" for line in lines)
    done = shell(root, marked, cwd=cwd)
    failed = done.stderr.rpartition("@@ ")[2]
    assert done.returncode == 0, f"{failed[-3000:]}\n{done.stdout[-1000:]}"
    assert "Traceback" not in done.stderr, done.stderr[-3000:]


def summary_of(root: Path, run: str) -> list[str]:
    """The commands at the end of what a finished run shows, as the shell that entered nothing gets them."""
    shown = shell(root, f".venv/bin/python jobs/pretrain.py --extend {run}")
    assert shown.returncode == 0, shown.stderr[-2000:]
    return [line.split(":", 1)[1].strip() for line in shown.stdout.partition("\nnext:\n")[2].splitlines() if line.strip()]


RUNS = {"mine": {"sample", "evaluate", "pretrain"}, "de-en": {"sample", "evaluate", "pretrain", "prepare"}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("last", "runs"),
    [pytest.param("--extend mine", ("mine",), id="start"), pytest.param("", tuple(RUNS), id="all", marks=pytest.mark.full)],
)
def test_commands_run_as_they_are_printed(checkout: Path, last: str, runs: tuple[str, ...]) -> None:
    """last: the line of the README behind which the sample ends."""
    lines = ["make test ARGS='-q --collect-only tests/contract'" if line == "make test" else line for line in commands("")]
    assert len(lines) > 20 and "make pretrain" in lines
    end = next(i for i, line in enumerate(lines) if last in line) + 1 if last else len(lines)
    run_all(checkout, lines[:end])
    assert (checkout.parent / "home/elf-runs/runs/mine/summary.json").is_file()

    for run in runs:
        jobs, shown = RUNS[run], summary_of(checkout, run)
        assert {Path(shlex.split(line)[1]).stem for line in shown if " -m " not in line} == jobs
        assert all(line.startswith(".venv/bin/python jobs/") for line in shown if " -m " not in line)
        run_all(checkout, [line for line in shown if " -m mlflow" not in line])
    assert look_at(checkout, next(line for line in summary_of(checkout, "mine") if " -m mlflow" in line)) == 200

    listed = shell(checkout, "make -C clone track ARGS=list", cwd=checkout.parent).stdout
    assert "mine" in listed and "finished" in listed
    again = shell(checkout, "make -s -C clone pretrain ARGS='--extend mine'", cwd=checkout.parent)
    command = next(line.split(":", 1)[1].strip() for line in again.stdout.splitlines() if line.strip().startswith("sample:"))
    run_all(checkout, [command], cwd=checkout.parent)


def look_at(root: Path, command: str) -> int:
    """Status of MLflow's page, once its server answers."""
    words = [*shlex.split(command), "--port", "5917"]
    environment = {"PATH": os.defpath, "HOME": str(root.parent / "home")}
    quiet = subprocess.DEVNULL
    with subprocess.Popen(words, cwd=root, env=environment, stdout=quiet, stderr=quiet, start_new_session=True) as server:
        try:
            for _ in range(240):
                try:
                    with urllib.request.urlopen("http://127.0.0.1:5917/", timeout=5) as answer:
                        return int(answer.status)
                except OSError:
                    assert server.poll() is None, "the server ended"
                    time.sleep(0.5)
            return 0
        finally:
            os.killpg(server.pid, 15)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cluster", "cloud", "hub"])
def test_commands_that_need_more_than_this_machine_are_known(kind: str, checkout: Path) -> None:
    lines = commands(kind)
    assert lines
    for line in lines:
        found = re.search(r"python (jobs/\w+\.py) .*", line)
        program = shlex.split(line.split("&")[0])[0 if "=" not in line.split()[0] else 1]
        assert program == "python" or (checkout / ".venv/bin" / program).exists(), line
        if found:
            last = "--help" if "evaluate" in found[1] else "--print"
            done = shell(checkout, f"source .venv/bin/activate\n{found[0]} {last}")
            assert done.returncode == 0, done.stderr


def test_every_block_is_of_a_known_kind() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {kind for kind, _ in BLOCK.findall(text)} <= {"", "cluster", "cloud", "hub"}
    assert text.count("```bash") == len(BLOCK.findall(text))
    assert "RUN" not in " ".join(commands("")) and "KEY" not in " ".join(commands("")), "a placeholder cannot be pasted"
