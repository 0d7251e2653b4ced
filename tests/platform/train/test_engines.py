"""One curve: the plain engine in one process and DeepSpeed at every ZeRO stage in two real gloo processes."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from elf_platform.tracking import read_metrics
from elf_platform.train.checkpoint import latest

ROOT = Path(__file__).parents[3]
WORKER = ROOT / "tests/support/zero_worker.py"


def run(folder: Path, *, kind: str, zero: int = 0, world: int = 1, process: str = "elf", optimiser: str = "muon", **train: Any) -> Path:
    """Train in ``world`` processes; the run folder. Fails with the workers' own output."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"kind": kind, "zero": zero, "world": world, "process": process, "optimiser": optimiser, "train": train}
    settings |= {"folder": str(folder), "token": uuid.uuid4().hex}
    path = os.pathsep.join(str(ROOT / folder) for folder in ("platform", "model", "tests/support"))
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(settings | {"rank": rank})], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for rank in range(world)
    ]
    try:
        outputs = [worker.communicate(timeout=180)[0].decode() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert all(worker.returncode == 0 for worker in workers), "\n".join(outputs)[-4000:]
    return folder


def curve(folder: Path) -> dict[str, list[float]]:
    points = read_metrics(folder / "metrics.jsonl")
    names = ("train/loss", "valid/loss", "optim/grad_norm")
    return {name: [m[name] for _, m in points if name in m] for name in names}


def same(found: Path, expected: Path) -> None:
    """Losses within 1e-5, weights and average within 1e-4 of the largest value."""
    for name, values in curve(expected).items():
        assert curve(found)[name] == pytest.approx(values, rel=1e-5), name
    for kind in ("weight", "ema"):
        a, b = (load_file(folder / f"final-{kind}.safetensors") for folder in (found, expected))
        assert a.keys() == b.keys()
        for name, value in b.items():
            assert float((a[name] - value).abs().max()) <= 1e-4 * max(float(value.abs().max()), 1e-3), f"{kind} {name}"


@pytest.mark.slow
@pytest.mark.parametrize(("process", "optimiser"), [("elf", "muon"), ("autoregressive", "adamw")])
def test_one_curve_on_every_engine(process: str, optimiser: str, tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", kind="plain", process=process, optimiser=optimiser)
    for zero in (0, 1, 2, 3):
        folder = tmp_path / f"zero{zero}"
        run(folder, kind="deepspeed", zero=zero, world=2, process=process, optimiser=optimiser, micro_batch=2 if zero % 2 else 0)
        same(folder, plain)


@pytest.mark.slow
def test_a_run_moves_between_engines_and_numbers_of_workers(tmp_path: Path) -> None:
    """Half on ZeRO-3 with two workers, the rest on one plain worker: the curve of an undivided run."""
    plain = run(tmp_path / "plain", kind="plain")
    moved = run(tmp_path / "moved", kind="deepspeed", zero=3, world=2)
    last = latest(moved / "checkpoints")
    assert last is not None and last.step == 8
    (last.folder / "COMMITTED").unlink()  # as if it had been killed in the last save: step 4 is the newest that counts
    run(moved, kind="plain")
    same(moved, plain)
