"""Commands that are shown to the user, written so that they run when they are pasted into the shell that the user has.

How this very process was started decides: its interpreter, the jobs of its checkout, and its working directory.
"""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

CALLED_FROM = "ELF_CALLED_FROM"
"""Environment variable: the directory of the shell, where a starter such as ``make -C`` has gone elsewhere."""


def job_command(job: str, *words: str | Path, anywhere: bool = False) -> str:
    """The shell command that runs a job, such as ``job_command("sample", run, "--count", "16")``.

    anywhere: for other shells as well, in other directories, as for a page that is read later."""
    return shlex.join([_python(anywhere), _shown(jobs_folder() / f"{job}.py", anywhere), *map(str, words)])


def module_command(module: str, *words: str | Path, anywhere: bool = False) -> str:
    """The shell command that runs a module of this Python environment."""
    return shlex.join([_python(anywhere), "-m", module, *map(str, words)])


def as_typed(text: str) -> str:
    """``text`` with every ``python jobs/NAME.py`` and ``pip install`` in it as the user has to type it; what is so already stays."""
    text = re.sub(r"(?<![\w/.-])(?<!-m )pip install\b", lambda _: module_command("pip", "install"), text)
    return re.sub(r"(?<![\w/.-])python jobs/(\w+)\.py", lambda found: job_command(found[1]), text)


def jobs_folder() -> Path:
    """Where the jobs are: in this checkout, else (the packages are installed elsewhere) beside the job that runs."""
    ours = Path(__file__).resolve().parents[2] / "jobs"
    return ours if ours.is_dir() else Path(sys.argv[0]).absolute().parent


def _python(anywhere: bool) -> str:
    """The interpreter: ``python`` where the shell finds this very one under that name, else its path."""
    found = None if anywhere else shutil.which("python")
    if not sys.executable or (found and _same_interpreter(Path(found), Path(sys.executable))):
        return "python"
    return _shown(Path(sys.executable), anywhere)


def _same_interpreter(one: Path, other: Path) -> bool:
    """Both the file and the folder: the interpreters of all virtual environments lead to one file."""
    return one.resolve() == other.resolve() and one.parent.resolve() == other.parent.resolve()


def _shown(path: Path, anywhere: bool) -> str:
    """Relative to the shell's directory when that is shorter. A bare name would be looked up in PATH, so it keeps its folder."""
    absolute = os.path.abspath(path)
    here = os.environ.get(CALLED_FROM, os.getcwd())
    try:
        if anywhere or not os.path.samefile(here or os.sep, os.getcwd()):
            return absolute
    except OSError:  # the shell's directory is gone
        return absolute
    relative = os.path.relpath(absolute)
    if os.sep not in relative:
        relative = os.path.join(os.curdir, relative)
    return relative if len(relative) < len(absolute) else absolute
