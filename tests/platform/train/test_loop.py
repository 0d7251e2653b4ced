"""The training loop on the plain engine: figures, learning, resume, and saves that fail."""

import contextlib
import json
import math
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from elf.processes import PROCESSES, EmbeddedFlow
from elf.sampling.config import SampleConfig
from elf_platform.config import HealthConfig, RunConfig
from elf_platform.tracking import read_metrics
from elf_platform.tracking.journal import read_lines
from elf_platform.train import loop, saver
from elf_platform.train.checkpoint import goes_on_from, latest
from elf_platform.train.health import BadStep, RolledBack, read_windows
from elf_platform.train.loop import Training, train
from elf_platform.train.requests import Answer, answer_to, ask, withdraw
from elf_platform.train.snapshots import append_samples

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


@pytest.mark.parametrize(("kind", "dropout"), [("elf", 0.0), ("autoregressive", 0.0), ("elf", 0.3)])
def test_a_resumed_run_ends_bit_for_bit_like_an_uninterrupted_one(
    kind: str, dropout: float, config_of: Config, training: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(PROCESSES[kind](), dropout=dropout, checkpoint_every=3)
    whole = training(config, tmp_path / "whole")
    train(whole)

    class Stopped(Exception):
        pass

    original = loop._Loop._step

    def stop_at_five(self: loop._Loop, step: int, *rest: Any) -> None:
        if step == 5:
            raise Stopped
        original(self, step, *rest)

    interrupted = training(config, tmp_path / "cut")
    monkeypatch.setattr(loop._Loop, "_step", stop_at_five)
    with pytest.raises(Stopped):
        train(interrupted)
    monkeypatch.setattr(loop._Loop, "_step", original)
    resumed = training(config, tmp_path / "cut")
    assert resumed.resume is not None and resumed.resume.step == 3
    train(resumed)
    assert weights(whole).keys() == weights(resumed).keys()
    for key, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[key]), key
    assert resumed.train_rows.read_rows == whole.train_rows.read_rows[3 * 8 :]
    states = [latest(tmp_path / name / "checkpoints").state for name in ("cut", "whole")]
    for name in ("time_counts", "health", "counters", "interval", "valid_loss"):
        assert states[0][name] == states[1][name], name
    # The interval that was cut in the middle is logged as if it had not been.
    curves = [dict(read_metrics(tmp_path / name / "metrics.jsonl")) for name in ("cut", "whole")]
    losses = [[figures["train/loss"] for step, figures in found.items() if step] for found in curves]
    assert losses[0] == pytest.approx(losses[1], rel=1e-14)


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
    (window,) = read_windows(tmp_path)
    assert (window.step, window.first_row, window.rows) == (1, 8, 8) and "nan" in window.reason
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
    original = saver.write_rank_file

    def write(folder: Path, *rest: Any) -> dict[str, Any]:
        with full_disk() if f"step-{full_at:08d}" in folder.name else contextlib.nullcontext():
            return original(folder, *rest)

    monkeypatch.setattr(saver, "write_rank_file", write)
    if full_at == 8:
        with pytest.raises(OSError, match="could not be written") as error:
            train(job)
        assert "last good one is kept" in str(error.value) and "newest checkpoint is of step 6" in str(error.value)
    else:
        train(job)
        (failed,) = [event for _, event in read_lines(tmp_path / "events.jsonl") if event["kind"] == "checkpoint"]
        assert failed["step"] == 4 and "step 4 could not be written" in failed["text"]
    job.tracker.close()
    kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert kept == [f"step-{step:08d}" for step in (2, 4, 6, 8) if step != full_at]
    assert latest(tmp_path / "checkpoints") is not None


def test_the_time_histogram_counts_each_flow_row_once(config_of: Config, training: Build, tmp_path: Path) -> None:
    job = training(config_of(EmbeddedFlow(decoder_prob=0.25), steps=8), tmp_path)
    train(job)
    assert sum(latest(tmp_path / "checkpoints").state["time_counts"]) == 8 * 6


def poison(job: Training, at: int) -> None:
    """The gradient of one step is not finite, whenever that step is done."""
    original = job.engine.step

    def step(number: int, *rest: Any) -> Any:
        if number == at:
            next(iter(job.network.parameters())).grad.view(-1)[0] = float("inf")
        return original(number, *rest)

    job.engine.step = step  # type: ignore[method-assign]


def kinds(folder: Path) -> list[tuple[str, int]]:
    return [(event["kind"], event["step"]) for _, event in read_lines(folder / "events.jsonl")]


def test_a_bad_step_can_stop_the_run(config_of: Config, training: Build, tmp_path: Path) -> None:
    config = replace(config_of(checkpoint_every=2), health=HealthConfig(on_bad_step="stop"))
    job = training(config, tmp_path)
    poison(job, 5)
    with pytest.raises(BadStep, match="Step 5 .rows 40 to 47"):
        train(job)
    assert kinds(tmp_path) == [("stop", 5)] and latest(tmp_path / "checkpoints").step == 4


def test_a_bad_step_can_roll_back_and_is_never_done_again(config_of: Config, training: Build, tmp_path: Path) -> None:
    """Rolled back to step 4, the run is the one in which step 5 was skipped, to the last bit."""
    config = replace(config_of(checkpoint_every=2), health=HealthConfig(on_bad_step="rollback"))
    job = training(config, tmp_path / "back")
    poison(job, 5)
    with pytest.raises(RolledBack):
        train(job)
    again = training(config, tmp_path / "back")
    assert again.resume is not None and again.resume.step == 4
    train(again)
    skipping = training(replace(config, health=HealthConfig(on_bad_step="skip")), tmp_path / "skip")
    poison(skipping, 5)
    train(skipping)
    assert kinds(tmp_path / "back") == [("rollback", 5)] and kinds(tmp_path / "skip") == [("skip", 5)]
    assert again.engine.updater.optimizer.counters["step"] == 7
    for key, value in weights(skipping).items():
        assert torch.equal(value, weights(again)[key]), key


def test_a_spike_is_skipped_and_the_decision_survives_a_resume(config_of: Config, training: Build, tmp_path: Path) -> None:
    config = replace(config_of(steps=12, checkpoint_every=4), health=HealthConfig(spike_factor=50.0, window=8))
    job = training(config, tmp_path)
    original = job.engine.backward

    def backward(loss: torch.Tensor, *, last: bool) -> None:
        original(loss * (1e4 if job.engine.updater.optimizer.counters["step"] == 9 and not read_windows(tmp_path) else 1.0), last=last)

    job.engine.backward = backward  # type: ignore[method-assign]
    train(job)
    (window,) = read_windows(tmp_path)
    assert window.step == 9 and "gradient norm" in window.reason and "median" in window.reason
    assert job.engine.updater.optimizer.counters["step"] == 11
    for folder in sorted((tmp_path / "checkpoints").iterdir())[1:]:
        shutil.rmtree(folder)
    resumed = training(config, tmp_path)  # nothing is multiplied now, and step 9 is passed over all the same
    assert resumed.resume is not None and resumed.resume.step == 4
    train(resumed)
    for key, value in weights(job).items():
        assert torch.equal(value, weights(resumed)[key]), key


def test_a_request_saves_and_a_stop_ends_with_the_very_run(config_of: Config, training: Build, tmp_path: Path) -> None:
    config = config_of(steps=40, checkpoint_every=100, valid_every=0)
    whole = training(config, tmp_path / "whole")
    train(whole)
    job = replace(training(config, tmp_path / "asked"), launch="one")
    asked = ask(tmp_path / "asked", "another", "stop", "not meant for this attempt")
    original, seen = job.engine.step, []

    def step(number: int, *rest: Any) -> Any:
        if number in (5, 10):
            seen.append(ask(tmp_path / "asked", "one", "save" if number == 5 else "stop", "the test says so"))
        return original(number, *rest)

    job.engine.step = step  # type: ignore[method-assign]
    assert train(job) == "stopped"
    assert [answer_to(tmp_path / "asked", request) for request in (asked, *seen)] == [None, Answer(step=7), Answer(step=12)]
    assert sorted(p.name for p in (tmp_path / "asked/checkpoints").iterdir()) == ["step-00000007", "step-00000012"]
    resumed = training(config, tmp_path / "asked")
    assert train(resumed) == "finished"
    for key, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[key]), key


def test_a_stop_that_cannot_be_saved_says_so(config_of: Config, training: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the answer nor the event may read as if the step were saved; and a stop that comes beside a save is still one."""
    job = replace(training(config_of(steps=8, checkpoint_every=2, valid_every=0), tmp_path), launch="one")
    write, step, asked = saver.write_rank_file, job.engine.step, []

    def full(folder: Path, *rest: Any) -> dict[str, Any]:
        with full_disk() if "step-00000005" in folder.name else contextlib.nullcontext():
            return write(folder, *rest)

    def ask_both(number: int, *rest: Any) -> Any:
        if number == 3:
            asked.extend(ask(tmp_path, "one", action, f"the test asks to {action}") for action in ("stop", "save"))
        return step(number, *rest)

    monkeypatch.setattr(saver, "write_rank_file", full)
    job.engine.step = ask_both  # type: ignore[method-assign]
    with pytest.raises(OSError, match="step 5 could not be written"):
        train(job)
    job.tracker.close()
    answers = [answer_to(tmp_path, request) for request in asked]
    assert all(answer is not None and answer.step is None and answer.problem.startswith("worker 0") for answer in answers)
    (event,) = [event for _, event in read_lines(tmp_path / "events.jsonl") if event["kind"] == "stop"]
    assert "the test asks to stop" in event["text"] and "was not saved" in event["text"]
    assert goes_on_from(tmp_path / "checkpoints") == "the newest checkpoint is of step 4: the same command goes on from there"


def test_workers_that_saved_for_a_resize_wait_for_their_end(
    config_of: Config, training: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step is lost between the save and the end of the group; a resize that is called off lets them go on at once."""
    job = replace(training(config_of(steps=6, checkpoint_every=100, valid_every=0), tmp_path), launch="one")
    monkeypatch.setattr(loop, "RESIZE_HOLD_S", 60.0)
    step, held, done = job.engine.step, [], []

    def ask_at_two(number: int, *rest: Any) -> Any:
        if number == 2:
            request = ask(tmp_path, "one", "resize", "the test")

            def controller() -> None:
                while answer_to(tmp_path, request) is None:
                    time.sleep(0.01)
                time.sleep(0.3)
                held.append(list(done))
                withdraw(tmp_path, request)

            threading.Thread(target=controller, daemon=True).start()
        done.append(number)
        return step(number, *rest)

    job.engine.step = ask_at_two  # type: ignore[method-assign]
    assert train(job) == "finished"
    (at_the_end,) = held
    assert at_the_end[-1] == 3 and done == list(range(6)), "the workers did not wait"


def test_rows_are_recorded(config_of: Config, training: Build, tmp_path: Path) -> None:
    job = training(config_of(steps=3, record_rows=True, valid_rows=0), tmp_path)
    train(job)
    lines = [line for _, line in read_lines(tmp_path / "rows/rank-00000.jsonl")]
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert [row for line in lines for row in line["rows"]] == job.train_rows.read_rows


def test_samples_follow_whole_lines(tmp_path: Path) -> None:
    """A killed worker's half line goes with the next samples, instead of spoiling their first."""
    config = SampleConfig(count=2)
    append_samples(tmp_path, 10, ["one", "two é"], config, 8)
    path = tmp_path / "samples.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    append_samples(tmp_path, 20, ["three", "four"], config, 8)
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(line["step"], line["text"]) for line in found] == [(10, "one"), (20, "three"), (20, "four")]
