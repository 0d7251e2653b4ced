"""The two benchmarks of quality on small random models: they run, count evaluations, go on where they were stopped, and draw."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from made_words import WORDS
from score_subjects import make_judge
from small_artefact import small_artefact, small_tokenizer

from elf_platform.config import DataConfig, TokenizerConfig
from elf_platform.data.prepare import prepare

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, " ".join(done.stderr.split())  # errors are wrapped to the terminal's width
    return done.stdout


def test_samplers_at_equal_evaluations(tmp_path: Path) -> None:
    artefact, judge = small_artefact(tmp_path / "artefact"), make_judge(tmp_path / "judge", small_tokenizer())
    arguments = [artefact, "--judge", judge, "--nfe", 5, "--count", 3, "--batch", 2, "--threads", 1, "--out", tmp_path / "out"]
    first = run("samplers.py", *arguments, "--seeds", 1, "--samplers", "ode", "heun")
    lines = (tmp_path / "out" / "points.jsonl").read_text().splitlines()
    points = [json.loads(line) for line in lines[1:]]
    assert {(p["sampler"], p["nfe"]) for p in points} == {("ode", 5), ("heun", 4)} and len(points) == 6
    assert all(p["gen_ppl"] > 1 and p["texts"] == 3 for p in points)
    # One more seed is one more point a setting; those that are there stay.
    second = run("samplers.py", *arguments, "--seeds", 2, "--samplers", "ode")
    after = (tmp_path / "out" / "points.jsonl").read_text().splitlines()
    assert after[: len(lines)] == lines and len(after) == len(lines) + 3
    assert first.count("| heun |") == 3 and "| heun |" not in second
    assert (tmp_path / "out" / "gen_ppl-uniform.svg").read_text().startswith("<svg") and (tmp_path / "out" / "grids-ode.svg").is_file()


def test_samplers_refuse_points_of_other_settings(tmp_path: Path) -> None:
    artefact, judge = small_artefact(tmp_path / "artefact"), make_judge(tmp_path / "judge", small_tokenizer())
    arguments = [artefact, "--judge", judge, "--nfe", 2, "--seeds", 1, "--samplers", "ode", "--grids", "uniform", "--out", tmp_path / "out"]
    run("samplers.py", *arguments, "--count", 2)
    with pytest.raises(AssertionError, match="points of other settings"):
        run("samplers.py", *arguments, "--count", 3)


def test_guidance_beside_its_baselines(tmp_path: Path) -> None:
    pairs = [f"{a} {b} {n}\t{b} {n}. {a}!\n" for n, (a, b) in enumerate(zip(WORDS, reversed(WORDS), strict=True))]
    (tmp_path / "pairs.tsv").write_text("to\tfrom\n" + "".join(pairs))
    data = prepare(
        DataConfig(
            paths=(str(tmp_path / "pairs.tsv"),), source_column="from", text_column="to", source_length=8, length=16, packing="document",
            tokenizer=TokenizerConfig(vocab_size=320), valid_fraction=0.3,
        ),
        tmp_path, progress=False, each=map_here,
    )
    artefact = small_artefact(tmp_path / "artefact", source_length=8)
    out = run(
        "guidance.py", artefact, "--data", data.folder, "--scales", 1, 2, "--steps", 2, "--count", 4, "--batch", 3, "--threads", 1,
        "--out", tmp_path / "out",
    )
    record = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert list(record["scores"]) == ["copy", "lead", "unigram", "cfg 1", "cfg 2"] and record["pairs"] == 4
    assert "| cfg 1 | 3 |" in out and "| cfg 2 | 5 |" in out
    texts = [json.loads(line) for line in (tmp_path / "out" / "texts.jsonl").read_text().splitlines()]
    assert len(texts) == 4 and all(text["source"].startswith(text["lead"]) and text["lead"].endswith(".") for text in texts)
    assert (tmp_path / "out" / "bleu-cfg.svg").is_file()


def map_here(jobs, task):  # type: ignore[no-untyped-def]
    return map(task, jobs)
