"""A run that is trained on to more steps: the very run of that length where the schedule does not look at the end."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from elf.optim.config import OptimConfig
from elf.processes import PROCESSES
from elf_platform.config import RunConfig
from elf_platform.tracking import read_metrics
from elf_platform.train.checkpoint import CheckpointReader, latest
from elf_platform.train.loop import Training, train

Build = Callable[..., Training]
Config = Callable[..., RunConfig]


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    """Weights, average and optimiser state of the newest checkpoint."""
    checkpoint = latest(folder / "checkpoints")
    assert checkpoint is not None
    reader = CheckpointReader(checkpoint)
    return {f"{kind}/{name}": value for kind in ("weight", "ema") for name, value in reader.whole(kind).items()}


@pytest.mark.parametrize("kind", sorted(PROCESSES))
def test_6_steps_and_6_more_are_12_steps(kind: str, config_of: Config, training: Build, tmp_path: Path) -> None:
    config = config_of(PROCESSES[kind](), steps=12, checkpoint_every=12, valid_every=0, log_every=4)
    assert config.optim.decay == "constant"
    whole = training(config, tmp_path / "whole")
    train(whole)
    first = training(replace(config, train=replace(config.train, steps=6)), tmp_path / "extended")
    train(first)
    more = training(config, tmp_path / "extended")
    assert more.resume is not None and more.resume.step == 6
    train(more)
    live, extended = whole.engine.updater.state(), more.engine.updater.state()
    assert live.keys() == extended.keys() and len(live) > 10
    for key, value in live.items():
        assert torch.equal(value, extended[key]), key
    for key, value in state_of(tmp_path / "whole").items():
        assert torch.equal(value, state_of(tmp_path / "extended")[key]), key
    assert more.train_rows.read_rows == whole.train_rows.read_rows[6 * 8 :]
    for job in (whole, first, more):
        job.tracker.close()
    ends = [dict(read_metrics(tmp_path / name / "metrics.jsonl"))[12]["valid/loss"] for name in ("whole", "extended")]
    assert ends[0] == ends[1]


def test_a_schedule_that_looks_at_the_end_makes_another_run(config_of: Config, training: Build, tmp_path: Path) -> None:
    """What the notes to --extend say of a cosine: the rate rises again, and the run is not that of the whole length."""
    optim = OptimConfig(lr=5e-3, warmup_steps=2, decay="cosine", final_lr_ratio=0.1, ema_decay=0.9)
    config = replace(config_of(steps=12, checkpoint_every=6, valid_rows=0, log_every=1), optim=optim)
    whole = training(config, tmp_path / "whole")
    train(whole)
    first = training(replace(config, train=replace(config.train, steps=6)), tmp_path / "extended")
    train(first)
    more = training(config, tmp_path / "extended")
    train(more)
    for job in (whole, first, more):
        job.tracker.close()
    rates = {step: point["optim/lr"] for step, point in read_metrics(tmp_path / "extended/metrics.jsonl") if "optim/lr" in point}
    assert rates[6] == pytest.approx(5e-4) and rates[7] > 4 * rates[6] and rates[12] == pytest.approx(5e-4)
    same = {step: point["optim/lr"] for step, point in read_metrics(tmp_path / "whole/metrics.jsonl") if "optim/lr" in point}
    assert all(rates[step] == same[step] for step in range(7, 13)), "from step 6 on the schedule is that of 12 steps"
    whole_state, extended_state = state_of(tmp_path / "whole"), state_of(tmp_path / "extended")
    assert any(not torch.equal(value, extended_state[key]) for key, value in whole_state.items())
