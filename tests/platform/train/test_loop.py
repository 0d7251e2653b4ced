"""The training loop on the plain engine: figures, learning, resume, and saves that fail."""

import contextlib
import math
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from elf.processes import PROCESSES, EmbeddedFlow
from elf_platform.config import RunConfig
from elf_platform.tracking import read_metrics
from elf_platform.train import loop
from elf_platform.train.checkpoint import latest
from elf_platform.train.loop import Training, train

Build = Callable[..., Training]
Config = Callable[..., RunConfig]


def weights(job: Training) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in job.engine.updater.state().items()}


@pytest.mark.parametrize("kind", sorted(PROCESSES))
def test_a_run_learns_and_logs_what_it_promises(kind: str, config_of: Config, training: Build, tmp_path: Path) -> None:
    job = training(config_of(PROCESSES[kind](), steps=40), tmp_path)
    train(job)
    job.tracker.close()
    points = dict(read_metrics(tmp_path / "metrics.jsonl"))
    first, last = points[0], points[40]
    assert last["valid/loss"] < first["valid/loss"]
    for name in job.process.part_names:
        assert math.isfinite(last[f"train/{name}"]) and math.isfinite(last[f"valid/{name}"])
    speed = {f"perf/{name}" for name in ("tokens_per_second", "step_seconds", "mfu", "data_wait_share", "memory_gb")}
    named = {"optim/lr", "optim/grad_norm", *speed}
    assert named <= last.keys()
    assert {"optim/grad_norm/muon", "optim/grad_norm/adam", "optim/update_norm/muon", "optim/update_norm/adam"} <= last.keys()
    assert 0 < last["perf/mfu"] < 1.5 and 0 <= last["perf/data_wait_share"] <= 1
    assert points[2]["optim/lr"] == pytest.approx(0.5 * job.config.optim.lr)  # the second of two warm-up steps
    levels = [name for name in last if name.startswith("train/level/")]
    assert bool(levels) == (kind == "elf")


def test_the_loss_does_not_depend_on_the_micro_batch(config_of: Config, training: Build, tmp_path: Path) -> None:
    curves = []
    for size in (0, 1, 2, 4):
        job = training(config_of(micro_batch=size, log_every=1), tmp_path / str(size))
        train(job)
        job.tracker.close()
        curves.append([m["train/loss"] for s, m in read_metrics(tmp_path / str(size) / "metrics.jsonl") if s])
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], rel=1e-5)


def test_validation_does_not_depend_on_the_micro_batch(config_of: Config, training: Build, tmp_path: Path) -> None:
    figures = []
    for size in (1, 4, 8):
        job = training(config_of(micro_batch=size, valid_rows=15, steps=2, log_every=1), tmp_path / str(size))
        train(job)
        job.tracker.close()
        figures.append(dict(read_metrics(tmp_path / str(size) / "metrics.jsonl"))[0])
    for other in figures[1:]:
        assert {k: v for k, v in other.items() if k.startswith("valid/")} == pytest.approx(
            {k: v for k, v in figures[0].items() if k.startswith("valid/")}, rel=1e-5
        )


@pytest.mark.parametrize("kind", ["elf", "autoregressive"])
def test_a_resumed_run_ends_bit_for_bit_like_an_uninterrupted_one(
    kind: str, config_of: Config, training: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(PROCESSES[kind](), checkpoint_every=3)
    whole = training(config, tmp_path / "whole")
    train(whole)

    class Stopped(Exception):
        pass

    original = loop._one_step

    def stop_at_five(job: Training, meter: loop.Meter, step: int, *rest: object) -> None:
        if step == 5:
            raise Stopped
        original(job, meter, step, *rest)  # type: ignore[arg-type]

    interrupted = training(config, tmp_path / "cut")
    monkeypatch.setattr(loop, "_one_step", stop_at_five)
    with pytest.raises(Stopped):
        train(interrupted)
    monkeypatch.setattr(loop, "_one_step", original)
    resumed = training(config, tmp_path / "cut")
    assert resumed.resume is not None and resumed.resume.step == 3
    train(resumed)
    assert weights(whole).keys() == weights(resumed).keys()
    for key, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[key]), key
    assert resumed.train_rows.read_rows == whole.train_rows.read_rows[3 * 8 :]
    assert latest(tmp_path / "cut" / "checkpoints").state["time_counts"] == latest(tmp_path / "whole" / "checkpoints").state["time_counts"]


def test_a_gradient_that_is_not_finite_skips_the_step(config_of: Config, training: Build, tmp_path: Path) -> None:
    job = training(config_of(log_every=1, steps=3), tmp_path)
    broken = {"at": 1, "calls": 0}
    original = job.engine.backward

    def backward(loss: torch.Tensor, *, last: bool) -> None:
        original(loss, last=last)
        if broken["calls"] == broken["at"]:
            next(iter(job.network.parameters())).grad[0] = float("nan")
        broken["calls"] += 1

    job.engine.backward = backward  # type: ignore[method-assign]
    before = weights(job)
    train(job)
    job.tracker.close()
    points = dict(read_metrics(tmp_path / "metrics.jsonl"))
    assert points[2]["health/skipped_steps"] == 1 and "health/skipped_steps" not in points[3]
    assert job.engine.updater.optimizer.counters["step"] == 2
    after = weights(job)
    assert all(bool(value.isfinite().all()) for value in after.values())
    assert any(not torch.equal(after[k], before[k]) for k in after)


@contextlib.contextmanager
def full_disk(space: int = 4096) -> Iterator[None]:
    """The operating system refuses every file beyond ``space`` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (space, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("full_at", [4, 8])
def test_a_disk_that_fills_during_a_save(
    full_at: int, config_of: Config, training: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle training goes on and says so; at the end it is an error. The last good checkpoint survives both."""
    job = training(config_of(steps=8, checkpoint_every=2), tmp_path)
    original = loop.write_rank_file

    def write(folder: Path, *rest: object) -> dict[str, object]:
        with full_disk() if folder.name.endswith(f"{full_at:08d}") else contextlib.nullcontext():
            return original(folder, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "write_rank_file", write)
    if full_at == 8:
        with pytest.raises(OSError, match="could not be written") as error:
            train(job)
        assert "last good one is kept" in str(error.value) and "resumes" in str(error.value)
    else:
        train(job)
        warning = next((tmp_path / "texts").glob("warning*")).read_text()
        assert "step 4 could not be written" in warning
    job.tracker.close()
    kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert kept == [f"step-{step:08d}" for step in (2, 4, 6, 8) if step != full_at]
    assert latest(tmp_path / "checkpoints") is not None


def test_the_time_histogram_counts_each_flow_row_once(config_of: Config, training: Build, tmp_path: Path) -> None:
    job = training(config_of(EmbeddedFlow(decoder_prob=0.25), steps=8), tmp_path)
    train(job)
    assert sum(latest(tmp_path / "checkpoints").state["time_counts"]) == 8 * 6
