"""A working directory with files of modules' names: our packages are found all the same, or a paragraph says what is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from elf_platform.shadows import check_folder, check_interpreter

ROOT = Path(__file__).parents[2]


def test_names_that_workers_would_import_are_refused(tmp_path: Path) -> None:
    for harmless in ("elf", "data", "platform", "numpy"):  # folders without __init__.py come last wherever they lie
        (tmp_path / harmless).mkdir()
    (tmp_path / "mine.py").touch()
    (tmp_path / "elf.txt").touch()
    check_folder(tmp_path)
    for held in ("elf.py", "random.py", "deepspeed.py", "elf_platform/__init__.py", "numpy/__init__.py"):
        path = tmp_path / held
        path.parent.mkdir(exist_ok=True)
        path.touch()
        with pytest.raises(ValueError, match=rf"(?s)holds .*{held.removesuffix('/__init__.py')}.*Rename"):
            check_folder(tmp_path)
        path.unlink()
    check_folder(ROOT)
    check_folder(ROOT / "jobs")


@pytest.mark.parametrize("shadow", ["elf.py", "elf/__init__.py", "elf/files.py"])
def test_packages_are_found_beside_a_folder_of_their_name(shadow: str, tmp_path: Path) -> None:
    """In a notebook or under ``python -m`` the working directory comes first."""
    path = tmp_path / shadow
    path.parent.mkdir(exist_ok=True)
    path.write_text("raise SystemExit('the wrong module was imported')\n")
    words = ["-c", "import elf_platform, elf.files; print('found')"]
    environment = os.environ | {"PYTHONPATH": f":{ROOT / 'platform'}"}  # an empty entry is the working directory
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "found" in done.stdout, done.stderr


def test_jobs_find_their_packages_whatever_lies_in_the_working_directory(tmp_path: Path) -> None:
    for shadow in ("elf.py", "elf_platform.py", "_paths.py"):
        (tmp_path / shadow).write_text("raise SystemExit('the wrong module was imported')\n")
    words = [sys.executable, str(ROOT / "jobs/track.py"), "--help"]
    done = subprocess.run(words, cwd=tmp_path, env=os.environ | {"PYTHONPATH": ":"}, capture_output=True, text=True)
    assert done.returncode == 0 and "flush" in done.stdout, done.stderr


def test_a_wrong_module_that_was_imported_first_is_told(tmp_path: Path) -> None:
    (tmp_path / "elf.py").touch()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "platform")}
    done = subprocess.run(
        [sys.executable, "-c", "import elf, elf_platform"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1 and "the module 'elf' was imported from" in done.stderr and "start from another folder" in done.stderr


def test_an_interpreter_that_ray_cannot_start_is_refused() -> None:
    check_interpreter("/home/me/elf-platform_1/.venv/bin/python3.11")
    for path in ("/home/me/my code/.venv/bin/python", "/home/$me/python"):
        with pytest.raises(ValueError, match="Ray starts no workers from a path with a space"):
            check_interpreter(path)
