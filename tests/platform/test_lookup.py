"""A run's name or folder stands for its artefact and its data, and what is said of a place that has none is true."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from made_words import WORDS
from sample_folders import fill
from small_artefact import LINEAGE, small_artefact, small_tokenizer

from elf.artefact import Columns, load_artefact
from elf.codecs import TableConfig
from elf.files import write_text
from elf.processes import Autoregressive, EmbeddedFlow
from elf_platform.cli import parse_run_config, parse_settings
from elf_platform.config import DataConfig, RunConfig, TokenizerConfig
from elf_platform.config_io import read_config, write_config
from elf_platform.data.command import sort_prepare_words
from elf_platform.data.inspect_data import show
from elf_platform.data.prepare import prepare
from elf_platform.evaluate.command import evaluate
from elf_platform.evaluate.judge import load_judge
from elf_platform.evaluate.options import EvaluateCommand, with_new_names
from elf_platform.evaluate.record import ScoreRecord
from elf_platform.evaluate.texts import read_references, read_texts
from elf_platform.lookup import resolve
from elf_platform.sampling.command import SampleCommand, check
from elf_platform.sampling.job import print_samples


@dataclass(frozen=True)
class Place:
    storage: Path
    done: Path
    half: Path
    data: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A storage with pairs that were prepared, a finished run on them, a judge, and a run that has got to step 40."""
    storage = tmp_path_factory.mktemp("store")
    pairs = "".join(f"{WORDS[i % len(WORDS)]} {i}\t{WORDS[i % len(WORDS)]} {i}\n" for i in range(120))
    write_text(storage / "pairs.tsv", f"src\ttgt\n{pairs}")
    small_tokenizer().save(storage / "tokenizer.json")
    config = DataConfig(
        paths=(str(storage / "pairs.tsv"),), source_column="src", text_column="tgt", source_length=6, length=16, packing="document",
        tokenizer=TokenizerConfig(source=str(storage / "tokenizer.json")), valid_fraction=0.1,
    )
    data = prepare(config, storage, progress=False, each=lambda jobs, task: map(task, jobs))
    run = RunConfig(name="done", storage=storage, data=config, codec=TableConfig(), process=EmbeddedFlow())
    for name in ("done", "half"):
        (storage / "runs" / name).mkdir(parents=True)
        write_config(storage / "runs" / name / "config.json", run, recipe="tiny", code_version="1")
        write_text(storage / "runs" / name / "data.sha256", data.manifest.content_hash + "\n")
    done, half = storage / "runs/done", storage / "runs/half"
    lineage = LINEAGE | {"run": "done", "data_sha256": data.manifest.content_hash}
    small_artefact(done / "artefact", source_length=6, lineage=lineage, columns=Columns(source="src", text="tgt"))
    write_text(done / "summary.json", "{}")
    write_text(half / "metrics.jsonl", json.dumps({"step": 40, "metrics": {"train/loss": 2.0}}) + "\n")
    small_artefact(storage / "runs/judge/artefact", Autoregressive(), lineage=lineage | {"run": "judge"})
    write_text(storage / "runs/judge/config.json", (done / "config.json").read_text())
    return Place(storage=storage, done=done, half=half, data=data.folder)


def test_one_run_by_every_word_for_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELF_HOME", str(place.storage))
    monkeypatch.chdir(place.storage / "runs")
    for word in ("done", "done/", "./done", str(place.done), str(place.done / "artefact"), place.done / "artefact"):
        assert resolve(word, "artefact") == place.done / "artefact", word
        assert resolve(word, "data") == place.data, word
    for word in (place.data, place.data.name, "half", place.half):
        assert resolve(word, "data", storage=place.storage) == place.data, word
    monkeypatch.chdir("/")
    assert resolve("done", "run") == place.done and resolve("half", "run") == place.half
    assert load_artefact(resolve("judge", "artefact")).process == Autoregressive()
    assert load_judge("judge").card.name == "judge" and load_judge(str(place.storage / "runs/judge")).card.name == "judge"


def test_a_folder_beside_that_is_no_run_does_not_hide_the_run(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "done").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("done", "artefact", storage=place.storage) == place.done / "artefact"


@pytest.mark.parametrize(
    ("where", "wanted", "said"),
    [
        ("nowhere", "artefact", r"at .*nowhere: no such folder, and no run of that name in .*runs, which has the runs done, half, judge;"),
        ("don", "artefact", r"no run of that name in .*runs \(did you mean done\?\)"),
        ("half", "artefact", r"run half, which is interrupted, at step 40 of 1,000; .* Go on with it:\n    .*pretrain.py --extend .*half$"),
        ("runs/half", "artefact", r"the run half, which is interrupted, at step 40 of 1,000"),
        ("data/KEY", "artefact", r"no artefact at .*: it is prepared data; give a finished run by its name"),
        ("pairs.tsv", "artefact", r"it is a file"),
        ("", "artefact", r"it is a storage folder with the runs done, half, judge"),
        ("runs", "artefact", r"it is a folder of the runs done, half, judge"),
        ("runs/done/artefact", "run", r"no run at .*: it is the artefact of a model"),
        ("empty", "data", r"no prepared data at .*: it is an empty folder; give a folder data/KEY"),
        ("odd", "data", r"it is a folder with a\.txt, b\.txt; give"),
        ("runs/done/artefact/codec", "artefact", r"it is an encoder"),
        ("hub", "artefact", r"it is a model in the form of Hugging Face"),
    ],
)
def test_what_is_said_of_a_place_is_true(place: Place, where: str, wanted: str, said: str) -> None:
    for name in ("empty", "odd", "hub"):
        (place.storage / name).mkdir(exist_ok=True)
    for name in ("odd/a.txt", "odd/b.txt"):
        (place.storage / name).write_text("a")
    (place.storage / "hub/config.json").write_text('{"model_type": "gpt2"}')
    where = where.replace("KEY", place.data.name)
    word = place.storage / where if "/" in where or (place.storage / where).exists() else where
    with pytest.raises(FileNotFoundError) as error:
        resolve(word, wanted, storage=place.storage)  # type: ignore[arg-type]
    assert re.search(said, str(error.value)), error.value


def test_the_command_that_goes_on_names_the_run(place: Place) -> None:
    with pytest.raises(FileNotFoundError) as error:
        resolve("half", "artefact", storage=place.storage)
    folder = str(error.value).rsplit(" ", 1)[1]
    assert read_config(Path(folder)) == read_config(place.half)


def test_data_that_are_gone_are_said_to_be_gone(place: Place, tmp_path: Path) -> None:
    (tmp_path / "runs/old").mkdir(parents=True)
    write_text(tmp_path / "runs/old/config.json", (place.done / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match="has not got as far as its data"):
        resolve("old", "data", storage=tmp_path)
    write_text(tmp_path / "runs/old/data.sha256", "ab\n")
    with pytest.raises(FileNotFoundError, match=r"data are not in the storage any more; prepare them again:\n    .*prepare.py --config"):
        resolve("old", "data", storage=tmp_path)


def test_prepare_shows_the_held_out_pairs_of_a_run(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    words, rest = sort_prepare_words(["--held-out", "done", "--storage", str(place.storage)])
    assert words.looks and not rest
    assert show(held_out=words.held_out, storage=words.storage) == 0
    named = capsys.readouterr().out
    assert show(held_out=place.data) == 0
    assert capsys.readouterr().out == named and set(json.loads(named.splitlines()[0])) == {"source", "text"}
    with pytest.raises(ValueError, match="would have no effect"):
        sort_prepare_words(["--held-out", "done", "--data.length", "3"])


def test_a_configuration_is_that_of_a_run_by_its_name(place: Place) -> None:
    found = parse_run_config(["--config", "half", "--storage", str(place.storage), "--print"])
    assert found.config.data == read_config(place.half)[0].data and found.config.storage == place.storage


def sources_of(folder: Path, path: Path, *words: str) -> list[str]:
    command = parse_settings(SampleCommand, [str(folder), "--sources", str(path), *words], prog="sample")
    return [source.text for source in check(command, load_artefact(folder / "artefact"), threads=1).sources]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.tsv", ["id\tsrc\ttgt", "1\tthe sun\tX", "2\tthe river\tY"]),
        ("a.csv", ["src,tgt", "the sun,X", "the river,Y"]),
        ("a.jsonl", ['{"src": "the sun", "source": "no"}', '{"src": "the river", "source": "no"}']),
        ("other.jsonl", ['{"source": "the sun"}', '{"source": "the river"}']),
        ("a.txt", ["the sun", "the river"]),
        ("tabs.txt", ["src\ttgt", "the sun\tX", "the river\tY"]),
    ],
)
def test_the_columns_of_training_are_those_of_sampling(place: Place, tmp_path: Path, name: str, lines: Sequence[str]) -> None:
    write_text(tmp_path / name, "\n".join(lines) + "\n")
    assert sources_of(place.done, tmp_path / name) == ["the sun", "the river"]
    if name == "a.tsv":
        assert sources_of(place.done, tmp_path / name, "--source_column", "tgt") == ["X", "Y"], "a column that is given wins"


def test_a_run_is_sampled_by_its_name(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    rows = print_samples(SampleCommand(artefact=Path("done"), prompt="the sun", steps=2, storage=place.storage, threads=1, gpu="off"))
    assert len(rows) == 1 and "1 sample of 1 source" in capsys.readouterr().err


def test_evaluation_takes_runs_where_it_takes_artefacts_data_and_judges(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def scored(*words: str) -> ScoreRecord:
        argv = with_new_names([*words, "--resamples", "0", "--tracking.kind", "null"])
        return evaluate(parse_settings(EvaluateCommand, argv, prog="evaluate"))

    monkeypatch.chdir(place.storage)
    artefact = scored("judge", "--storage", ".")
    assert artefact.name == "judge" and artefact.subject["form"].startswith("valid rows of 16 tokens") and artefact.scores["nll"].value > 0
    assert scored(str(place.storage / "runs/judge"), "--data", "half", "--storage", ".").scores == artefact.scores
    text = tmp_path / "real.txt"
    text.write_text("the sun\nthe river\n")
    capsys.readouterr()
    record = scored(str(text), "--unit", "line", "--judge", "judge", "--reference=half", "--storage", ".")
    assert record.judge["name"] == "judge" and record.beside_subjects["reference"]["path"] == str(place.data)
    said = " ".join(capsys.readouterr().err.split())
    assert "--reference is called --real_text now" in said and "still works" in said
    with pytest.raises(ValueError, match="those that it was trained on are not in .*: give --data"):
        scored(str(small_artefact(tmp_path / "alone", Autoregressive())))


def test_references_come_from_the_column_of_training(place: Place, tmp_path: Path) -> None:
    """The folder of samples knows what the right answers were called; a column that is given wins."""
    write_text(tmp_path / "test.tsv", "src\ttgt\tother\nthe sun\tthe sun\tX\nthe river\tthe river\tY\n")
    loaded = load_artefact(place.done / "artefact")
    command = SampleCommand(artefact=place.done, sources=tmp_path / "test.tsv", steps=2)
    task = check(command, loaded, threads=1)
    fill(task, tmp_path / "samples", columns=loaded.columns)
    found = read_texts(tmp_path / "samples")
    assert found.target_column == "tgt"
    assert read_references(tmp_path / "test.tsv", remembered=found.target_column) == [["the sun"], ["the river"]]
    words = [str(tmp_path / "samples"), "--judge", "none", "--references", str(tmp_path / "test.tsv")]
    words += ["--tracking.kind", "null", "--resamples", "0"]
    own = evaluate(parse_settings(EvaluateCommand, words, prog="evaluate"))
    other = evaluate(parse_settings(EvaluateCommand, [*words, "--references_column", "other"], prog="evaluate"))
    assert own.protocol["references_sha256"] != other.protocol["references_sha256"]
