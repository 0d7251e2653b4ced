"""SIGTERM to the real job: a stop that is saved goes on from the very step, and one that cannot be saved does not say that it was."""

import signal
from pathlib import Path

import pytest
from pretraining import Pretraining

pytestmark = pytest.mark.slow

WORDS = "--train.steps 2000 --train.workers 2 --train.threads 1 --engine.zero 1 --train.checkpoint_every 2000 --train.stop_within_s 60"


def test_a_stop_ends_as_what_it_came_to(tiny_text: Path, tmp_path: Path) -> None:
    run = Pretraining(tmp_path, tiny_text, "stopped", WORDS)
    try:
        run.start()
        run.until(lambda: run.step() >= 20)
        run.kill_driver(signal.SIGTERM)
        assert run.wait() == 143, run.said()[-3000:]
        (stop,) = run.events("stop")
        assert stop["step"] > 20 and "was saved first" in stop["text"]
        assert f"newest checkpoint is of step {stop['step']}: the same command goes on from there" in run.said()
        run.start()
        run.until(lambda: len(run.events("attempt")) == 2)
        assert run.events("attempt")[1]["step"] == stop["step"]
        run.until(lambda: run.step() >= stop["step"] + 5)
        (run.folder / "checkpoints").rename(run.folder / "elsewhere")
        (run.folder / "checkpoints").write_text("no folder, so that no save can succeed")
        run.kill_driver(signal.SIGTERM)
        assert run.wait() not in (0, 130, 143), "a stop that was not saved ended as one that was"
    finally:
        run.end()
    last = run.events("stop")[-1]
    said = run.said().split("stopping:")[-1]
    assert "was not saved" in last["text"] and "Not a directory" in last["text"]
    assert "the stop was not saved" in said and "no checkpoint was committed yet" in said and "goes on from there" not in said
    assert "could not be written" in " ".join(said.split("error:")[1].split()), "what failed is not shown at the end"
    assert len(run.events("attempt")) == 2, "the group was started again although it was to end"
