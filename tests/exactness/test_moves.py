"""Moves: a run that changes engine, ZeRO stage and number of workers at each stop goes on with the curve of an undivided one."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from curves import bounds, curve, curves_apart, runs_apart, state_at, tensors_apart
from tables import Table
from worker_pool import STEPS, Described, WorkerPool

from elf_platform.tracking.journal import read_lines

pytestmark = pytest.mark.slow


STATE = 1e-4
"""Of weights, average and optimiser state at an arrow, relative to the largest value of the tensor."""


@dataclass(frozen=True, kw_only=True)
class Leg:
    """A part of the run on one engine; the last leg goes to the end."""

    name: str
    kind: str
    zero: int
    workers: int
    stop_after: int
    micro_batch: int = 0


LEGS = [
    Leg(name="plain-1", kind="plain", zero=0, workers=1, stop_after=3),
    Leg(name="ZeRO2-2", kind="deepspeed", zero=2, workers=2, stop_after=8, micro_batch=2),
    Leg(name="ZeRO3-2", kind="deepspeed", zero=3, workers=2, stop_after=12),
    Leg(name="ZeRO1-1", kind="deepspeed", zero=1, workers=1, stop_after=17, micro_batch=4),
    Leg(name="plain-1", kind="plain", zero=0, workers=1, stop_after=0),
]


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
@pytest.mark.parametrize("process", ["autoregressive", "elf"])
def test_a_run_that_moves_is_one_curve(
    process: str, optimiser: str, pools: dict[int, WorkerPool], undivided: Callable[..., Path], tables: dict[str, Table], tmp_path: Path
) -> None:
    expected, folder, first = undivided(process, optimiser), tmp_path / "moved", 0
    for leg in LEGS:
        answer = pools[leg.workers].run(
            Described(
                folder=folder, process=process, optimiser=optimiser, kind=leg.kind, zero=leg.zero, stop_after=leg.stop_after,
                train={"micro_batch": leg.micro_batch, "keep": len(LEGS)},
            )
        )
        assert answer == {"outcome": "stopped" if leg.stop_after else "finished", "first": first}
        assert list(curve(folder, "train/loss")) == list(range(1, (leg.stop_after or STEPS) + 1))
        first = leg.stop_after
    lines = [line["step"] for _, line in read_lines(folder / "metrics.jsonl") if "train/loss" in line["metrics"]]
    assert lines == list(range(1, STEPS + 1)), "a step was logged by two legs, or by none"
    for before, after in itertools.pairwise(LEGS):
        steps = range(before.stop_after + 1, (after.stop_after or STEPS) + 1)
        legs = [{s: v for s, v in curve(f, "train/loss").items() if s in steps} for f in (folder, expected)]
        state = tensors_apart(*(state_at(f, before.stop_after) for f in (folder, expected)))
        assert state <= STATE
        tables["moves"].add((process, optimiser, f"{before.name} → {after.name}"), str(before.stop_after), (state, curves_apart(*legs)))
    assert runs_apart(folder, expected).beyond(bounds(optimiser)) == []
