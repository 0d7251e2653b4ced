"""The runs of a storage on one page: state, steps, loss, when, and the command that goes on with each."""

import io
import time
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from elf.files import read_object
from elf_platform.commands import job_command
from elf_platform.lock import is_held
from elf_platform.terminal import Terminal
from elf_platform.tracking.base import load_handle
from elf_platform.tracking.journal import METRICS_FILE, read_metrics

_ENDS = {"KILLED": "stopped", "FAILED": "failed"}


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A run as its folder tells it."""

    folder: Path
    state: str
    """starting, running, finished, stopped, failed, not started; interrupted: its driver was killed."""
    steps: int
    wanted: int | None
    loss: str
    changed: float
    """Unix seconds."""


def list_runs(storage: Path) -> str:
    """A table of the runs in ``storage``, last changed first, and the commands that go on with those that are not finished."""
    runs = storage / "runs"
    folders = [folder for folder in runs.glob("*") if (folder / "config.json").is_file() or is_held(folder)]
    if not folders:
        return f"there are no runs in {runs}; $ELF_HOME or --storage names another storage"
    found = sorted(map(read_run, folders), key=lambda run: -run.changed)
    table = Table("run", "state", "steps", "loss", "last change", box=None, padding=(0, 2))
    for run in found:
        clock = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.changed))
        of = f" of {run.wanted:,}" if run.wanted is not None else ""
        table.add_row(run.folder.name, run.state, f"{run.steps:,}{of}", run.loss, clock)
    out = io.StringIO()
    Terminal(out, width=1000).print(table)
    lines = [f"runs in {runs}", *(line.rstrip() for line in out.getvalue().splitlines())]
    left = [run for run in found if run.state not in ("finished", "running", "starting")]
    if left:
        lines += ["", "to go on with one:", *(f"  {job_command('pretrain', '--extend', run.folder)}" for run in left)]
    return "\n".join(lines)


def read_run(folder: Path) -> Listed:
    """What the files of a run folder say; files that are missing or unfinished say nothing."""
    points = read_metrics(folder / METRICS_FILE)
    config, handle = read_object(folder / "config.json"), load_handle(folder)
    train = config.get("train")
    wanted = train.get("steps") if isinstance(train, dict) else None
    done = read_object(folder / "summary.json").get("steps", wanted) if (folder / "summary.json").is_file() else None
    if is_held(folder):
        state = "running" if config else "starting"  # with its data, or its encoder; it is a run's name from the first step on
    elif done is not None and not (isinstance(done, float) and isinstance(wanted, int) and done < wanted):
        state = "finished"  # a run that is being extended has a summary of the steps before
    elif not points:
        state = "not started"
    else:
        state = _ENDS.get(handle.end if handle else "", "interrupted")
    files = [path.stat().st_mtime for name in ("summary.json", METRICS_FILE, "config.json") if (path := folder / name).is_file()]
    return Listed(
        folder=folder, state=state, steps=points[-1][0] if points else 0, wanted=wanted if isinstance(wanted, int) else None,
        loss=_loss(points), changed=max(files, default=folder.stat().st_mtime),
    )


def _loss(points: list[tuple[int, dict[str, float]]]) -> str:
    """The last validation loss, else the last training loss."""
    for name, said in (("valid/loss", "validation"), ("train/loss", "training")):
        values = [metrics[name] for _, metrics in points if isinstance(metrics.get(name), int | float)]
        if values:
            return f"{values[-1]:.4g} ({said})"
    return ""
