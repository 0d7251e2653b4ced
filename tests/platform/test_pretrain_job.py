"""The main job as a user runs it: a command line, a real Ray cluster, two DeepSpeed workers, MLflow, a report."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from elf.artefact import load_artefact
from elf_platform.evaluate.record import load_record

ROOT = Path(__file__).parents[2]
SMALL = (
    "--data.length 24 --data.tokenizer.vocab_size 400 --codec.channels 16 --codec.steps 6 --codec.global_batch 8",
    "--codec.network.hidden 32 --codec.network.depth 1 --codec.network.heads 2 --network.hidden 32 --network.depth 2 --network.heads 2",
    "--network.bottleneck 8 --train.steps 8 --train.global_batch 8 --train.log_every 2 --train.valid_every 4 --train.valid_rows 16",
    "--train.sample_every 4 --train.checkpoint_every 4 --optim.warmup_steps 2 --sample.steps 4",
)


def pretrain(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(ROOT / folder) for folder in ("platform", "model"))
    env = os.environ | {"ELF_HOME": str(home), "PYTHONPATH": path, "COLUMNS": "400"}
    env.pop("RAY_ADDRESS", None)
    command = [sys.executable, str(ROOT / "jobs/pretrain.py"), *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, cwd=home)


@pytest.mark.slow
def test_the_main_job_end_to_end(tiny_text: Path, tmp_path: Path) -> None:
    words = ("tiny", "--data.paths", f"{tiny_text}/*.txt", "--name", "first", *" ".join(SMALL).split())
    words += ("--train.workers", "2", "--engine.zero", "2")
    done = pretrain(tmp_path, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "runs/first"
    words_said = ("artefact", "report", "generative perplexity", "protocol elf", "mlflow ui --backend-store-uri", "next:", "NFE", "time")
    for word in (*words_said, "decoder cross-entropy"):
        assert word in done.stdout, word
    figures = json.loads((run / "summary.json").read_text())
    assert figures["steps"] == 8 and figures["sample/nfe"] == 5
    assert {"valid/decoder_ce", "valid/flow", "valid/flow_at_start", "valid/unigram_ce", "sample/known_word_share"} <= figures.keys()
    assert {"score/gen_ppl", "score/gen_ppl_reference", "score/gen_ppl_unigram", "score/entropy", "score/protocol"} <= figures.keys()
    assert load_record(run).scores["gen_ppl"].value == figures["score/gen_ppl"]
    artefact = load_artefact(run / "artefact")
    assert artefact.lineage["step"] == 8 and artefact.codec is not None
    page = (run / "report.html").read_text()
    assert "first" in page and "<script src" not in page
    assert len(json.loads((run / "trajectory.json").read_text())["points"]) == 4
    sampled = {json.loads(line)["step"] for line in (run / "samples.jsonl").read_text().splitlines()}
    assert sampled == {4, 8}
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        runs = store.execute("select status from runs").fetchall()
        logged = {name for (name,) in store.execute("select distinct key from metrics")}
    assert runs == [("FINISHED",)]
    assert {"train/loss", "valid/loss", "optim/lr", "perf/mfu", "score/gen_ppl", "sample/nfe"} <= logged
    assert "Traceback" not in done.stderr and "pid=" not in done.stderr, "noise of the libraries"

    again = pretrain(tmp_path, *words)
    assert again.returncode == 0 and "finished already" in again.stderr
    other = pretrain(tmp_path, *words, "--optim.lr", "1e-4")
    said = " ".join(other.stderr.split())
    assert other.returncode == 2 and "name first is taken" in said and "optim.lr: 0.008 -> 0.0001" in said


@pytest.mark.slow
@pytest.mark.full  # tests/platform/data/test_content.py and test_claim.py ask the same of the parts, in a second
def test_a_run_goes_on_when_its_corpus_was_touched_changed_and_deleted(tiny_text: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(tiny_text, tmp_path / "corpus"))
    words = ["tiny", "--data.paths", f"{corpus}/*.txt", "--name", "first", *" ".join(SMALL).split(), "--train.judge", "none"]
    done = pretrain(tmp_path, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "runs/first"
    data = (run / "data.sha256").read_text()
    for path in corpus.glob("*.txt"):
        os.utime(path, ns=(10**18, 10**18))
    steps, notes = 8, []
    for change in (lambda: None, lambda: (corpus / "new.txt").write_text("one more\n\ntext\n"), lambda: shutil.rmtree(corpus)):
        change()
        steps += 2
        more = pretrain(tmp_path, "--extend", "first", "--train.steps", str(steps))
        assert more.returncode == 0, more.stderr[-3000:]
        assert json.loads((run / "summary.json").read_text())["steps"] == steps
        notes.append([line for line in more.stderr.splitlines() if "goes on with the data that were prepared" in line])
        assert (run / "data.sha256").read_text() == data
    assert notes[0] == [] and "the corpus has changed since" in notes[1][0] and "nothing matches it" in notes[2][0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tiny", "--data.paths", "no/such/*.txt"], "no/such"),
        (["tiny", "--train.workers", "32", "--engine.zero", "1"], "but the cluster has"),
        (["tiny", "--train.global_batch", "7", "--train.workers", "2"], "does not divide"),
        (["tinny"], "tiny"),
        (["tiny", "--optim.lrr", "1"], "did you mean optim.lr"),
    ],
)
def test_bad_input_ends_in_one_paragraph(words: list[str], expected: str, tmp_path: Path) -> None:
    done = pretrain(tmp_path, *words)
    assert done.returncode == 2
    assert expected in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
    assert len(done.stderr.strip().split("\n\n")) == 1
    assert not list((tmp_path / "runs").glob("*/checkpoints")) if (tmp_path / "runs").exists() else True
