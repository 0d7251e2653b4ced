"""Sample folders filled in this process, without Ray."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from elf.artefact import Columns, load_artefact
from elf_platform.sampling.command import SampleCommand, Task, check
from elf_platform.sampling.folder import begin, finish, missing_parts, unfinish
from elf_platform.sampling.rows import load_sampler, make_part


def task_of(artefact: Path, **settings: Any) -> Task:
    """What a command line with these settings asks for; 3 steps unless it says otherwise, or the process has none."""
    loaded = load_artefact(artefact)
    steps = {"steps": 3} if loaded.process.needs_codec else {}
    return check(SampleCommand(artefact=artefact, **(steps | settings)), loaded, threads=1)


def fill(
    task: Task, folder: Path, *, order: Callable[[list[int]], list[int]] = list, stop_after: int | None = None,
    columns: Columns | None = None,
) -> dict[str, Any]:
    """As the job does; ``stop_after`` parts it is killed, and nothing is returned."""
    begin(folder, task.run, task.config.count)
    parts = missing_parts(folder, task.sizes)
    if parts:
        unfinish(folder)
        sampler = load_sampler(task)
        for part in order(parts)[:stop_after]:
            make_part(sampler, task, folder, part)
    return {} if stop_after is not None else finish(folder, task.run, task.sizes, {"run": "made"}, columns)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, by its path in the folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "lock"}
