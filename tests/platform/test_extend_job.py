"""Extending, and giving a trained run other samples, as a user does it: the real job, and the commands that it prints."""

import json
import os
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from pretraining import ROOT, SMALL, Pretraining

from elf.artefact import load_artefact
from elf_platform.config_io import read_config, read_history

pytestmark = pytest.mark.slow

CONSTANT = "--optim.decay constant --optim.final_lr_ratio 0 --train.checkpoint_every 10"


def shell(command: str, home: Path) -> subprocess.CompletedProcess[str]:
    """A command line as it was printed, in a shell of its own in the checkout."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    env |= {"ELF_HOME": str(home), "COLUMNS": "100", "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
    return subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True, timeout=900, cwd=ROOT)


def printed(text: str) -> str:
    """The command in what was printed: it is a line of its own."""
    (line,) = [line.strip() for line in text.splitlines() if line.startswith("    ") and "jobs/pretrain.py" in line]
    return line


def test_a_run_is_extended_and_sampled_anew_by_the_commands_that_are_printed(tiny_text: Path, tmp_path: Path) -> None:
    home = tmp_path / "has a blank"
    home.mkdir()
    short = Pretraining(home, tiny_text, "short", f"{CONSTANT} --train.steps 10")
    whole = Pretraining(home, tiny_text, "whole", f"{CONSTANT} --train.steps 20")
    base = shlex.join(["python", "jobs/pretrain.py", *SMALL.split(), "--data.paths", f"{tiny_text}/*.txt", *CONSTANT.split()])

    typo = shell(f"{base} --name short --train.steps 10 --data.paths no/such.txt", home)
    assert typo.returncode == 2 and "no/such.txt" in typo.stderr and not (home / "runs/short").exists()

    short.finish()
    whole.finish()
    first = short.final()
    assert first["step"] == "10"

    refused = shell(f"{base} --name short --train.steps 20", home)
    assert refused.returncode == 2 and "is one of 10 steps, and this asks for 20" in " ".join(refused.stderr.split())
    extended = shell(printed(refused.stderr), home)
    assert extended.returncode == 0, extended.stderr[-3000:]
    assert "goes on from step 10 to 20" in extended.stderr and "learning rate: goes on at" in extended.stderr
    assert short.final() == whole.final() != first, "not the weights, average and optimiser state of 20 steps from the start"
    assert short.rows() == whole.rows()
    assert json.loads((short.folder / "summary.json").read_text())["steps"] == 20
    assert load_artefact(short.folder / "artefact").lineage["step"] == 20
    assert [entry["changed"] for entry in read_history(short.folder)] == [{"train.steps": [10, 20]}]
    assert [(line["step"], line["text"]) for line in short.events("extend")] == [(10, "train.steps: 10 -> 20")]

    attempts = len(short.events("attempt"))
    sampled = shell("python jobs/pretrain.py --extend short --sample.steps 3", home)
    assert sampled.returncode == 0, sampled.stderr[-3000:]
    assert "made anew with sample.steps: 2 -> 3" in sampled.stderr and len(short.events("attempt")) == attempts, "it trained"
    assert json.loads((short.folder / "summary.json").read_text())["sample/nfe"] == 4
    assert read_config(short.folder)[0].sample.steps == 3
    again = shell("python jobs/pretrain.py --extend short", home)
    assert again.returncode == 0 and "finished already" in again.stderr and "--extend short --train.steps 40" in again.stderr
    with sqlite3.connect(home / "mlflow.db") as store:
        runs = store.execute("select name, status from runs").fetchall()
    assert sorted(runs) == [("short", "FINISHED"), ("whole", "FINISHED")], "one tracked run each, opened again for what was added"

    other = shell(f"{base} --name short --train.steps 20 --seed 1", home)
    assert other.returncode == 2 and "seed: 0 -> 1" in " ".join(other.stderr.split())
