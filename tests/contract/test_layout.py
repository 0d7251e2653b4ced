"""The shape of the tree: source roots that are no packages, and files short enough to read."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_source_roots_are_not_packages() -> None:
    """A platform/__init__.py or platform.py hides the standard library's platform: uuid, pip, pytest and Ray die at import."""
    forbidden = ("platform/__init__.py", "model/__init__.py", "platform.py", "model.py", "__init__.py")
    assert [name for name in forbidden if (ROOT / name).exists()] == []


@pytest.mark.parametrize("statement", ["import uuid; uuid.uuid4()", "import pip", "import ray"])
def test_the_standard_library_wins_in_the_repository_root(statement: str) -> None:
    code = f"import platform; {statement}; print(platform.__file__); platform.machine()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert ROOT not in Path(done.stdout.strip()).parents


def test_test_folders_are_not_packages() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_files_are_short() -> None:
    files = [*(ROOT / "model").rglob("*.py"), *(ROOT / "platform").rglob("*.py")]
    assert files
    assert {str(f.relative_to(ROOT)): lines(f) for f in files if lines(f) > 400} == {}
    jobs = list((ROOT / "jobs").glob("*.py"))
    assert jobs
    assert {f.name: lines(f) for f in jobs if lines(f) > 40} == {}
