"""Training a run on to more steps: which run is meant, what may be given with it, the command, and what becomes of the schedule."""

import dataclasses
import os
import shlex
from pathlib import Path
from typing import Any

from elf.optim import learning_rate
from elf_platform.config import RunConfig
from elf_platform.config_io import default_storage, read_config
from elf_platform.identity import compare
from elf_platform.tracking.runs import naming
from elf_platform.words import BUILTIN


def run_to_extend(folder: Path) -> tuple[RunConfig, str]:
    """The configuration of the run in ``folder``, under the name and the storage that it has now, and its recipe.

    Raises ValueError when the folder does not lie in the runs of a storage."""
    if folder.parent.name != "runs":
        raise ValueError(
            f"{folder} does not lie in the folder runs of a storage, where a run can go on; move it to STORAGE/runs/{folder.name}"
        )
    config, recipe = read_config(folder)
    return dataclasses.replace(config, name=folder.name, storage=folder.parent.parent), recipe


def check_extension(known: RunConfig, config: RunConfig) -> None:
    """Raises ValueError when more was given to --extend than a run can go on with."""
    others = [str(found) for found in compare(known, config) if found.role == "training" or found.path in ("name", "storage")]
    if others:
        raise ValueError(
            f"--extend trains the run {known.name} on as it is, but these would make it another one ({'; '.join(others)}). Steps, "
            "samples, rhythm, workers, engine and tracking may be given with it; for anything else start a new run: --config "
            f"{shlex.quote(str(known.storage / 'runs' / known.name))} takes its settings"
        )


def show_command(config: RunConfig, run: str = "") -> str:
    """The command that goes on with a run, or shows it when it is finished; run: its folder, where it is not that of ``config``."""
    return shlex.join([*_job(), "--extend", run or config.name, *([] if run else _storage(config)), *naming(config.tracking.uri)])


def extend_command(known: RunConfig, config: RunConfig) -> str:
    """The command that trains the run ``known`` on to the steps of ``config``, with its samples."""
    words = []
    for found in compare(known, config):
        if found.role in ("steps", "afterwards", "corpus"):
            words += _setting(found.path, found.new)
    return shlex.join([*_job(), "--extend", known.name, *_storage(known), *naming(known.tracking.uri), *words])


def newest_step(folder: Path) -> int:
    """Step of the newest checkpoint in a run folder by its name; 0 when there is none."""
    return max((int(f.name[5:]) for f in (folder / "checkpoints").glob("step-*") if f.name[5:].isdigit()), default=0)


def course_notes(config: RunConfig, *, before: int, at: int) -> list[str]:
    """What the learning rate and the moving average do when a run that was to end at ``before`` goes on from step ``at``."""
    optim, steps = config.optim, config.train.steps
    here, there = (learning_rate(at, optim, total) for total in (before, steps))
    if all(learning_rate(s, optim, before) == learning_rate(s, optim, steps) for s in (at, max(at, before), steps - 1)):
        rate = f"learning rate: goes on at {there:.4g}; the run is the one that {steps:,} steps from the start would have given"
    else:
        was = learning_rate(max(at - 1, 0), optim, before)
        moves = "rises" if there > was else "falls" if there < was else "stays"
        rate = (
            f"learning rate: the schedule ({optim.decay}) is that of {steps:,} steps now, so it {moves} from {was:.4g} to {there:.4g} at "
            f"step {at:,} (it would have been {here:.4g}) and ends at {learning_rate(steps - 1, optim, steps):.4g}; the run is not the one "
            f"that {steps:,} steps from the start would give"
        )
    left = optim.ema_decay ** (steps - at)
    return [rate, f"moving average: goes on where it was; of what it held at step {at:,}, {left:.1%} are left in it at step {steps:,}"]


def _job() -> list[str]:
    return ["python", "jobs/pretrain.py"]


def _storage(config: RunConfig) -> list[str]:
    return [] if config.storage == default_storage() else ["--storage", os.fspath(config.storage)]


def _setting(path: str, value: Any) -> list[str]:
    """A setting as words of the command line."""
    if isinstance(value, bool):
        table, _, leaf = path.rpartition(".")
        return [f"--{table}{'.' if table else ''}{leaf if value else f'no_{leaf}'}"]
    if path == "data.paths" and not value:
        return [f"--{path}", BUILTIN]
    return [f"--{path}", *map(str, value if isinstance(value, list) else [value])]
