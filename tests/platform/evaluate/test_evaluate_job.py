"""jobs/evaluate.py: what it leaves, what it refuses, and that the number of actors changes nothing."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from score_subjects import TEXTS, write_samples

from elf.data.tokenizer import Tokenizer
from elf_platform.cli import parse_settings
from elf_platform.config import TrackingConfig
from elf_platform.evaluate.command import compare_records, evaluate
from elf_platform.evaluate.options import CompareCommand, EvaluateCommand
from elf_platform.evaluate.record import load_record
from elf_platform.sampling.run import SourceFacts

ROOT = Path(__file__).parents[3]


def command(*words: str) -> EvaluateCommand:
    return parse_settings(EvaluateCommand, [*words, "--tracking.kind", "null"], prog="evaluate")


def test_samples_are_scored_into_their_folder(
    sample_folder: Path, judge_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = tmp_path / "targets.txt"
    targets.write_text("".join(f"{text}\n" for text in TEXTS))
    words = (str(sample_folder), "--judge", str(judge_folder), "--references", str(targets), "--resamples", "20")
    record = evaluate(command(*words))
    assert load_record(sample_folder) == record and record.scores["bleu"].value == pytest.approx(100)
    said = capsys.readouterr().out
    assert "Gen. PPL" in said and "score.json" in said
    other = evaluate(command(*words, "--protocol", "once", "--out", str(tmp_path / "once.json"), "--name", "again"))
    assert other.scores["gen_ppl"].value == record.scores["gen_ppl"].value, "our texts hold no end-of-text inside"
    said = compare_records(CompareCommand(records=(sample_folder, tmp_path / "once.json")))
    assert "* again" in said and "protocol.name: elf | once" in said


def test_a_text_is_scored_into_the_storage(judge_folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "real.txt"
    text.write_text("\n".join(TEXTS))
    words = (str(text), "--unit", "line", "--judge", str(judge_folder), "--storage", str(tmp_path), "--resamples", "0")
    record = evaluate(command(*words, "--real_text", str(text), "--controls"))
    assert load_record(next((tmp_path / "scores").glob("real-????????"))) == record and record.sampling["sampler"] == "given text"
    assert record.scores["gen_ppl"] == record.beside["reference"]["gen_ppl"] and record.scores["gen_ppl"].low is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no judge is given"),
        (("--judge", "nowhere"), "there is no judge at nowhere"),
        (("--judge", "none", "--controls"), "add --real_text"),
        (("--judge", "none", "--references", "nowhere.txt"), "there are no references at"),
        (("--judge", "none", "--data", "x"), "data has no effect"),
        (("--judge", "none", "--protocol", "elfin"), "elf-macro"),
        (("--judge", "none", "--count", "-1"), "count is -1"),
        (("--judge", "none", "--threads", "0"), "threads is 0"),
        (("--judge", "none", "--jugde", "x"), r"unknown setting jugde; did you mean judge\?"),
        (("--judge", "none", "--protocol", "bos", "--threads", "2"), "protocol, threads cannot be used with --judge none"),
    ],
)
def test_bad_settings_are_refused(words: tuple[str, ...], said: str, sample_folder: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        evaluate(command(str(sample_folder), *words))


def test_help_says_where_records_go_by_default(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit):
        parse_settings(EvaluateCommand, ["--help"], prog="evaluate", summary="one\ntwo")
    said = capsys.readouterr().out
    assert said.startswith("one\ntwo\n") and "(default: $ELF_HOME, or ~/elf-runs)" in " ".join(said.split()) and "(default: .)" not in said
    assert "{None}" not in said and "default: None" not in said and "--real_text PATH" in said
    boxes = [line for line in said.splitlines() if len(line) > 1 and line[0] == line[-1] and line[0] not in "+-"]
    assert len(boxes) > 20 and len(set(map(len, boxes))) == 1, (said, "the box is whole")


def test_another_measurement_stands_beside_the_first_and_the_same_in_its_place(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = write_samples(tmp_path / "samples", TEXTS, tokenizer)
    targets = tmp_path / "targets.txt"
    targets.write_text("".join(f"{text}\n" for text in TEXTS))
    plain = (str(folder), "--judge", "none", "--resamples", "0")
    first, second = evaluate(command(*plain)), evaluate(command(*plain, "--references", str(targets)))
    evaluate(command(*plain))
    (beside,) = folder.glob("score-????????.json")
    assert load_record(folder) == first and load_record(beside) == second
    assert "* samples" in compare_records(CompareCommand(records=(folder, beside)))
    shutil.rmtree(folder / "parts")
    for name in ("manifest.json", "samples.jsonl", "run.json"):
        (folder / name).unlink()
    (folder / "records/00000.json").unlink()
    write_samples(tmp_path / "other", [*TEXTS, "more"], tokenizer)
    shutil.copytree(tmp_path / "other", folder, dirs_exist_ok=True)
    with pytest.raises(ValueError, match=r"is of other samples than .* holds now.* evaluate again"):
        compare_records(CompareCommand(records=(folder,)))
    again = evaluate(command(*plain))
    assert load_record(folder) == again and "samples" in compare_records(CompareCommand(records=(folder,)))


def test_texts_of_one_name_have_records_of_their_own(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "valid.txt").write_text(f"a text of {place}")
        evaluate(command(str(tmp_path / place / "valid.txt"), "--judge", "none", "--storage", str(tmp_path)))
    assert len(list((tmp_path / "scores").glob("valid-*/score.json"))) == 2


def test_references_belong_to_the_lines_of_the_sources(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Two samples a source; a separator within a target begins no line, and a blank line is an empty target."""
    texts = ["a cat sat", "a dog barks", "", "the sea", "one more river", "one more river"]
    facts = SourceFacts(sha256="ef" * 32, lines=3, per_source=2)
    folder = write_samples(tmp_path / "samples", texts, tokenizer, sources=facts)
    (tmp_path / "targets.txt").write_bytes("\ufeffa cat\u2028sat\r\n\none more river\n".encode())
    (tmp_path / "targets.jsonl").write_text('{"text": "a cat sat"}\n\n{"text": "one more river"}\n')
    plain = (str(folder), "--judge", "none", "--resamples", "0", "--references")
    found = [evaluate(command(*plain, str(tmp_path / f"targets.{kind}"))) for kind in ("txt", "jsonl")]
    # ROUGE-1: 1, 0.33 of "a"; nothing is found in the empty target, which has no word; the last two 1.
    assert [record.scores["rouge1"].value for record in found] == [pytest.approx(100 * (1 + 1 / 3 + 1 + 1) / 4)] * 2
    assert found[0].scores["rouge1"].count == 4 and "over 4 of 6 texts" in found[0].remarks["rouge1"]
    few = evaluate(command(*plain, str(tmp_path / "targets.txt"), "--count", "2"))
    assert few.scores["rouge1"].value == pytest.approx(100 * (1 + 1 / 3) / 2) and few.subject["texts"] == 2
    (tmp_path / "targets.txt").write_text("a cat\nsat\n")
    with pytest.raises(ValueError, match=r"targets.txt holds 2 references, but .* 3 texts or sources"):
        evaluate(command(*plain, str(tmp_path / "targets.txt"), "--count", "2"))


def test_nothing_to_compare_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        CompareCommand(records=())
    with pytest.raises(FileNotFoundError, match="no score record at"):
        compare_records(CompareCommand(records=(tmp_path / "nowhere.json",)))


def test_an_artefact_needs_data_and_takes_no_judge(judge_folder: Path) -> None:
    with pytest.raises(ValueError, match="give --data"):
        evaluate(command(str(judge_folder)))
    with pytest.raises(ValueError, match="judge, protocol, unit cannot be used on an artefact"):
        evaluate(command(str(judge_folder), "--judge", "hf:gpt2-large", "--unit", "line", "--protocol", "bos"))
    assert TrackingConfig().kind == "mlflow"


@pytest.mark.slow
def test_the_job_gives_the_same_record_on_two_actors_and_tracks_it(sample_folder: Path, judge_folder: Path, tmp_path: Path) -> None:
    path = os.pathsep.join(str(ROOT / folder) for folder in ("platform", "model"))
    env = os.environ | {"ELF_HOME": str(tmp_path), "PYTHONPATH": path, "COLUMNS": "400"}
    env.pop("RAY_ADDRESS", None)
    records = []
    for actors in ("0", "2"):
        out = tmp_path / f"{actors}.json"
        words = [str(sample_folder), "--judge", str(judge_folder), "--actors", actors, "--batch_tokens", "24", "--out", str(out)]
        words += ["--real_text", str(sample_folder), "--controls"]
        done = subprocess.run(
            [sys.executable, str(ROOT / "jobs/evaluate.py"), *words], env=env, capture_output=True, text=True, timeout=900, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert "mlflow ui --backend-store-uri" in done.stdout and "Traceback" not in done.stderr and "pid=" not in done.stderr
        assert done.stderr.count("done in") == 1 and "core_worker" not in done.stderr, "all sets go through the judge at once, quietly"
        records.append(out.read_bytes())
    assert records[0] == records[1]
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        logged = dict(store.execute("select key, value from latest_metrics").fetchall())
        runs = store.execute("select name, status from runs").fetchall()
    plain = json.loads(records[0])
    assert logged["score/gen_ppl"] == pytest.approx(plain["scores"]["gen_ppl"]["value"])
    assert runs == [(f"score-{plain['name']}", "FINISHED")], "the same score is the same run"
