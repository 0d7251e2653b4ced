"""Kill matrix: whatever is killed, whenever, the run ends with the very bits of the uninterrupted one, and reads the same rows.

The real job on a real Ray cluster with two workers at ZeRO 2. Moments are drawn at random; some are put into a save and to an epoch's edge.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pretraining import Pretraining
from tables import Table

pytestmark = pytest.mark.slow

STEPS = 300
WORDS = f"--train.workers 2 --engine.zero 2 --train.steps {STEPS} --train.checkpoint_every 10 --train.max_failures 30"
BATCH = 16


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_text: Path) -> Pretraining:
    """The uninterrupted run."""
    run = Pretraining(tmp_path_factory.mktemp("kills"), tiny_text, "whole", WORDS)
    run.finish()
    assert [len(rows) for rows in run.rows().values()] == [2] * STEPS
    return run


def kill_worker(run: Pretraining, random_numbers: random.Random) -> str:
    rank = random_numbers.randrange(2)
    os.kill(run.workers()[rank], signal.SIGKILL)
    return f"rank {rank}"


def kill_all_workers(run: Pretraining, random_numbers: random.Random) -> str:
    for pid in run.workers():
        os.kill(pid, signal.SIGKILL)
    return "both ranks"


def kill_driver(run: Pretraining, random_numbers: random.Random) -> str:
    """The command and with it its cluster; then the same command again."""
    workers = run.workers()
    run.kill_driver()
    run.wait()
    end = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < end, "workers outlive their cluster"
        time.sleep(0.05)
    run.start()
    return "driver"


def moments(kills: int, rows: int, random_numbers: random.Random) -> list[tuple[int, str]]:
    """Increasing steps, each with what the run has to be at: any moment, a save, or the step in which an epoch ends."""
    edges = [k * rows // BATCH for k in range(1, STEPS * BATCH // rows + 1)]
    width = (STEPS - 30) // kills
    found = [(10 + i * width + random_numbers.randrange(max(width - 15, 1)), "step") for i in range(kills)]
    for i in range(0, kills, 3):
        found[i] = (found[i][0], "save")
    for i in range(1, kills, 3):
        near = min(edges, key=lambda edge: abs(edge - found[i][0]))
        before, after = (found[i - 1][0] if i else 0), (found[i + 1][0] if i + 1 < kills else STEPS - 10)
        if before + 12 < near < after - 12:
            found[i] = (near, "epoch edge")
    return found


@pytest.mark.parametrize("kill", [kill_worker, kill_all_workers, kill_driver], ids=["one worker", "all workers", "driver"])
def test_a_killed_run_ends_bit_for_bit_like_an_uninterrupted_one(
    kill: Callable[[Pretraining, random.Random], str], whole: Pretraining, tiny_text: Path, tables: dict[str, Table],
    request: pytest.FixtureRequest,
) -> None:
    name = request.node.callspec.id
    sample = {"one worker": 2, "all workers": 1, "driver": 1}  # during a save, and in the last step of an epoch
    kills = 10 if request.config.getoption("--matrix", default="sample") == "full" else sample[name]
    random_numbers = random.Random(name)
    run = Pretraining(whole.home, tiny_text, name.replace(" ", "-"), WORDS)
    rows = 1 + max(row for ranks in whole.rows().values() for share in ranks for row in share)
    run.start()
    told = []
    try:
        for i, (step, moment) in enumerate(moments(kills, rows, random_numbers)):
            # The attempt of before must be over, so that the process ids are those of the new one.
            run.until(lambda i=i: len(run.events("attempt")) == i + 1)  # type: ignore[misc]
            run.until(lambda step=step: run.step() >= step)  # type: ignore[misc]
            if moment == "save":
                run.until(run.saving)
            at = run.step()
            told.append((at, moment, kill(run, random_numbers)))
        assert run.wait() == 0, run.said()[-4000:]
    finally:
        run.end()
    attempts = run.events("attempt")
    assert len(attempts) == kills + 1
    assert run.final() == whole.final(), "the weights, average or optimiser state are not the same to the last bit"
    assert run.rows() == whole.rows()
    for (at, moment, what), resumed in zip(told, attempts[1:], strict=True):
        # Workers whose driver was killed may go on for a second or two, and save, until their cluster is gone.
        assert at - 11 <= resumed["step"] <= (STEPS if what == "driver" else at + 1), "it did not go on from the newest checkpoint"
        tables["kills"].add((f"{name} ({what})", moment), f"killed in step {at}, resumed from {resumed['step']}", ())
