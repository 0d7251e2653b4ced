"""A checkpoint of another run is refused with the names of what differs; a run of its own goes on, also to more steps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from small_training import LENGTH

from elf_platform.config import DataConfig, RunConfig
from elf_platform.tracking import RunHandle, start_tracker
from elf_platform.train.checkpoint import MARKER, Checkpoint, commit, writing_folder
from elf_platform.train.context import WorkerContext
from elf_platform.train.lineage import lineage_of
from elf_platform.train.worker import Job, find_resume

Config = Callable[..., RunConfig]


def resume(folder: Path, config: RunConfig, *, data: str = "d" * 64, codec: str = "c" * 64, shared: bool = False) -> Checkpoint | None:
    handle = RunHandle(kind="null")
    job = Job(
        config=config, run_folder=folder, data_folder=folder, data_fingerprint=data, codec_folder=None, channels=6, threads=1,
        tracking=handle, code_version="now", shared=shared,
    )
    lineage = lineage_of(config, data=data, codec=codec, code_version="now", tracking_run="")
    return find_resume(job, WorkerContext(run_folder=folder), start_tracker(handle, folder), lineage)


def leave_checkpoint(folder: Path, run: RunConfig, **changed: object) -> None:
    """A committed checkpoint without weights; find_resume reads none."""
    root = folder / "checkpoints"
    writing = writing_folder(root, 4, "t")
    writing.mkdir(parents=True)
    state = lineage_of(run, data="d" * 64, codec="c" * 64, code_version="then", tracking_run="abc") | changed
    assert (commit(root, writing, 4, state, []) / MARKER).is_file()


def test_its_own_run_goes_on(config_of: Config, tmp_path: Path) -> None:
    config = config_of()
    leave_checkpoint(tmp_path, config)
    longer = replace(config.train, steps=800, log_every=1)
    moved = replace(config, name="renamed", storage=tmp_path, data=DataConfig(length=LENGTH, paths=("elsewhere",)), train=longer)
    for own in (config, moved):
        found = resume(tmp_path, own)
        assert found is not None and found.step == 4


def test_another_run_is_refused_by_what_differs(config_of: Config, tmp_path: Path) -> None:
    config = config_of()
    leave_checkpoint(tmp_path, config)
    others = {
        "seed: 0 -> 7": replace(config, seed=7),
        "optim.lr: 0.005 -> 0.5": replace(config, optim=replace(config.optim, lr=0.5)),
    }
    for words, other in others.items():
        with pytest.raises(ValueError, match="another run") as error:
            resume(tmp_path, other)
        assert words in str(error.value) and str(tmp_path) in str(error.value)
    for name in ("data", "codec"):
        with pytest.raises(ValueError, match=f"{name}: {name[0] * 12} -> eeeeeeeeeeee"):
            resume(tmp_path, config, **{name: "e" * 64})


def test_what_an_older_checkpoint_does_not_say_is_taken_as_right(config_of: Config, tmp_path: Path) -> None:
    leave_checkpoint(tmp_path, config_of(), config=None, codec=None)
    assert resume(tmp_path, replace(config_of(), seed=7), codec="e" * 64) is not None
    with pytest.raises(ValueError, match="data: "):
        resume(tmp_path, config_of(), data="e" * 64)


def test_an_encoder_belongs_to_all_runs_that_share_it(config_of: Config, tmp_path: Path) -> None:
    """Its folder is named after what decides it; the run that began it may have had other settings of its own."""
    leave_checkpoint(tmp_path, config_of())
    assert resume(tmp_path, replace(config_of(), seed=7), shared=True) is not None
