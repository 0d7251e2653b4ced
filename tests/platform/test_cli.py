"""The command line: what it understands, and what it says when it does not."""

import ast
import dataclasses
import inspect
import os
import shlex
import subprocess
import sys
import textwrap
import typing
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import tyro
from ray.exceptions import RayTaskError, WorkerCrashedError
from ray.train import ControllerError, WorkerGroupError

from elf.codecs import CODECS, OwnConfig, T5Config, TableConfig
from elf.processes import PROCESSES, Autoregressive, EmbeddedFlow
from elf_platform import other_names
from elf_platform.cli import ParsedRun, describe_run, error_paragraph, parse_run_config, parse_settings, root_cause, run_main
from elf_platform.config import RunConfig
from elf_platform.config_io import flatten, write_config
from elf_platform.identity import config_hash
from elf_platform.recipes import RECIPES, tiny
from elf_platform.runtime import Cluster

ROOT = Path(__file__).resolve().parents[2]


def parse(line: str) -> ParsedRun:
    return parse_run_config(line.split())


def test_nothing_is_the_default_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ELF_HOME", str(tmp_path))
    run = parse("")
    assert run.recipe == "tiny" and not run.print_only
    assert run.config == dataclasses.replace(tiny(), name=f"tiny-{config_hash(tiny())}", storage=tmp_path)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_by_name(recipe: str) -> None:
    run = parse(f"{recipe} --print")
    assert run.recipe == recipe and run.print_only
    assert config_hash(run.config) == config_hash(RECIPES[recipe]())


def test_settings_of_every_type() -> None:
    line = (
        "tiny --optim.lr 1e-3 --optim.betas 0.8 0.95 --train.workers=2 --data.paths a.txt b.txt --data.strict --train.gpu off "
        "--process.time-mean -1.0 --name probe --codec.network.depth 3 --data.tokenizer.source unigram --tracking.kind null"
    )
    config = parse(line).config
    assert config.optim.lr == 1e-3 and config.optim.betas == (0.8, 0.95)
    assert config.train.workers == 2 and config.train.gpu == "off"
    assert config.data.paths == ("a.txt", "b.txt") and config.data.strict is True
    assert isinstance(config.process, EmbeddedFlow) and config.process.time_mean == -1.0
    assert isinstance(config.codec, OwnConfig) and config.codec.network.depth == 3
    assert config.name == "probe" and config.data.tokenizer.source == "unigram" and config.tracking.kind == "null"
    changed = {path for path, value in flatten(config).items() if value != flatten(tiny())[path]}
    assert changed == {
        "optim.lr", "optim.betas", "train.workers", "data.paths", "data.strict", "train.gpu", "process.time_mean", "name",
        "codec.network.depth", "data.tokenizer.source", "tracking.kind", "storage",
    }  # fmt: skip


def test_kinds_are_switched() -> None:
    run = parse("tiny --codec t5 --process=autoregressive --codec.latent_std 0.5")
    assert run.config.codec == T5Config(latent_std=0.5)
    assert run.config.process == Autoregressive()
    assert parse("tiny --codec.kind table").config.codec == TableConfig()
    assert parse("tiny --codec own").config.codec == tiny().codec  # the recipe's kind keeps the recipe's settings


def test_storage_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse("tiny --storage .").config.storage == tmp_path
    assert parse("tiny --storage=here").config.storage == tmp_path / "here"
    monkeypatch.setenv("ELF_HOME", "there")
    assert parse("tiny").config.storage == tmp_path / "there"


def test_a_run_is_repeated_from_its_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELF_HOME", str(tmp_path / "default"))
    first = parse(f"ar-tiny --seed 3 --storage {tmp_path}")
    folder = tmp_path / "runs" / first.config.name
    folder.mkdir(parents=True)
    write_config(folder / "config.json", first.config, recipe=first.recipe, code_version="0")
    again = parse(f"--config {folder}")
    assert again == first
    # Changed settings make another run, in the same storage; a name that was given stays.
    other = parse(f"--config {folder}/config.json --seed 4")
    assert other.config.name == f"ar-tiny-{config_hash(other.config)}" != first.config.name
    assert other.config.storage == tmp_path
    assert parse(f"--config {folder} --seed 4 --name mine").config.name == "mine"
    # A file that came from another machine: the run is the same, its storage is ours.
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "config.json"
    write_config(moved, dataclasses.replace(first.config, storage=Path("/not/here")), recipe="ar-tiny", code_version="0")
    assert parse(f"--config {moved}").config == dataclasses.replace(first.config, storage=tmp_path / "default")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("tyny", ["unknown recipe tyny", "did you mean tiny?", "owt-elf-b"]),
        ("--optim.lrr 3", ["unknown setting optim.lrr", "did you mean optim.lr?"]),
        ("--lr 3", ["unknown setting lr", "optim.lr"]),
        ("--optim.lr=3 --optim.warmup 3", ["optim.warmup", "did you mean optim.warmup_steps?"]),
        ("--optim.lr fast", ["--optim.lr", "fast"]),
        ("--seed 1.5", ["--seed", "1.5"]),
        ("--optim.name sgd", ["--optim.name", "sgd", "muon"]),
        ("--optim.betas 0.9", ["--optim.betas", "2 values"]),
        ("--optim.lr", ["--optim.lr", "value"]),
        ("--seed=5 tiny", ["recipe tiny must come first"]),
        ("tiny stray", ["unexpected word 'stray'"]),
        ("--codec tabel", ["unknown codec tabel", "did you mean table?"]),
        ("--codec table --codec.latent_std 1", ["unknown setting codec.latent_std"]),
        ("--codec", ["--codec needs a value"]),
        ("--storage --print", ["--storage needs a value"]),
        ("--data.strict maybe", ["unexpected word 'maybe'"]),
        ("--data.strict=maybe", ["--data.strict is 'maybe', but it is a switch", "write --data.strict or --data.strict False"]),
        ("tiny --config x", ["not both"]),
        ("--engine.zero 7", ["engine.zero is 7"]),
        ("--name a/b", ["without slashes"]),
        ("--train.workers 3 --train.global_batch 64", ["train.global_batch 64 does not divide among train.workers 3"]),
    ],
)
def test_mistakes_are_named(line: str, says: list[str]) -> None:
    with pytest.raises(ValueError) as refused:
        parse(line)
    message = str(refused.value)
    assert [part for part in says if part not in message] == []
    assert not set("│╭╰─\n") & set(message)


def test_a_missing_config_file() -> None:
    with pytest.raises(FileNotFoundError, match="there is no run at .*missing: no such folder"):
        parse("--config missing")


def help_of(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        parse(line)
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_the_first_page_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of("ar-tiny --help", capsys)
    assert text == help_of("ar-tiny -h", capsys)
    lines = text.splitlines()
    assert len(lines) <= 45
    for recipe, make in RECIPES.items():
        assert f"  {recipe}" in text and (inspect.getdoc(make) or "")[:40] in text
    assert any(line.split()[:2] == ["--train.steps", "320"] for line in lines)
    # What stands under "examples:" works when it is pasted; the last one trains, and the others differ from it by settings alone.
    examples = [shlex.split(line) for line in lines[lines.index("examples:") + 1 :] if line.startswith("  ")]
    assert len(examples) == 4
    for words in examples:
        assert words[1].endswith("jobs/pretrain.py")
        parse_run_config(words[2:])


@pytest.mark.parametrize("line", ["", "ar-tiny", "--codec t5"])
def test_help_all_lists_every_setting(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(f"{line} --help all", capsys)
    base = parse(line).config
    missing = [path for path in flatten(base) if f"--{path} " not in text and f"--{path}," not in text and not path.endswith(".kind")]
    assert missing == []


@pytest.mark.parametrize("columns", [30, 80, 132, 400])
def test_help_of_a_group(columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = help_of("--help optim", capsys)
    assert "--optim.lr " in text and "--train." not in text and "--network." not in text
    assert "--codec.network.depth " in help_of("--help=codec", capsys)
    with pytest.raises(ValueError, match="unknown group of settings optin; did you mean optim"):
        parse("--help optin")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    {
        "learning_rate": "optim.lr", "batch_size": "train.global_batch", "max_steps": "train.steps", "context_length": "data.length",
        "seq-len": "data.length", "n_layer": "network.depth", "hidden_size": "network.hidden", "train.batch_size": "train.global_batch",
        "max_grad_norm": "optim.clip_norm", "output_dir": "storage", "eval_every": "train.valid_every", "dtype": "train.precision",
        "epochs": "train.steps (train.steps = epochs x rows / train.global_batch)", "dataset": "data.paths",
    }.items(),
)  # fmt: skip
def test_names_of_other_tools_lead_to_ours(theirs: str, ours: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse(f"--{theirs} 3")
    assert f"unknown setting {theirs.replace('-', '_')}; did you mean {ours}?" in str(refused.value)
    assert ours.split()[0] in flatten(tiny())


def test_every_name_of_ours_that_others_are_led_to_exists() -> None:
    known = set(flatten(tiny())) | set(flatten(parse("ar-tiny").config))
    assert set(other_names._OURS) <= known
    theirs = [name for names in other_names._OURS.values() for name in names.split()]
    assert len(theirs) == len(set(theirs))
    assert not set(theirs) & known - {"steps"}


@pytest.mark.parametrize(
    ("line", "strict"),
    [
        ("--data.strict", True), ("--data.strict True", True), ("--data.strict=true", True), ("--data.strict yes", True),
        ("--data.strict --data.strict False", False), ("--data.no_strict", False), ("--data.strict=0", False),
        ("--data.strict False --seed 1", False), ("--data.strict --seed 1", True),
    ],
)  # fmt: skip
def test_switches_take_true_and_false(line: str, strict: bool) -> None:
    assert parse(line).config.data.strict is strict


def test_what_an_unset_variable_leaves_is_refused() -> None:
    for words in (
        ["--data.paths"], ["--data.paths", ""], ["--data.paths="], ["--data.paths", "a.txt", ""], ["--data.paths", "--seed", "1"],
        ["--storage", ""], ["--storage="], ["--config", ""], ["--name", ""], ["--codec", ""], [""],
    ):  # fmt: skip
        with pytest.raises(ValueError, match="is empty, as a shell variable that is not set leaves it"):
            parse_run_config(words)
    assert parse("--data.paths builtin").config.data.paths == ()
    assert parse("--data.paths ./builtin").config.data.paths == ("./builtin",)


def test_what_is_said_of_the_encoders_network() -> None:
    with pytest.raises(ValueError, match=r"^codec\.network\.hidden is -1"):
        parse("--codec.network.hidden -1")
    with pytest.raises(ValueError, match=r"^network\.hidden is -1"):
        parse("--network.hidden -1 --codec.network.depth 2")


def test_every_setting_is_explained() -> None:
    """The help is made of the strings under the fields."""
    silent = []
    queue: list[Any] = [RunConfig, *CODECS.values(), *PROCESSES.values()]
    for cls in queue:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(definition, ast.ClassDef)
        hints = typing.get_type_hints(cls)
        for field, after in zip(definition.body, [*definition.body[1:], ast.Pass()], strict=True):
            if not isinstance(field, ast.AnnAssign) or "ClassVar" in ast.unparse(field.annotation):
                continue
            assert isinstance(field.target, ast.Name)
            hint = hints[field.target.id]
            if dataclasses.is_dataclass(hint):
                queue += [hint] if hint not in queue else []
            elif cls is RunConfig and field.target.id in ("codec", "process"):
                continue
            elif not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)):
                silent.append(f"{cls.__name__}.{field.target.id}")
    assert len(queue) > 10
    assert silent == []


def test_help_is_quick_and_needs_no_framework() -> None:
    code = (
        "import sys\nfrom elf_platform.cli import parse_run_config\n"
        "try:\n    parse_run_config(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'ray', 'deepspeed', 'mlflow', 'transformers'} & sys.modules.keys()"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "model"), str(ROOT / "platform")])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_run_is_described() -> None:
    text = describe_run(tiny())
    assert "optim.name = muon" in text and "\nmuon: " in text and "\nadam: " in text and "parameters: " in text
    assert "before the data is prepared" in text
    assert "before the data is prepared" not in describe_run(tiny(), vocab_size=100, channels=8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a job of its own."""

    run: tyro.conf.Positional[Path]
    """A folder."""
    count: int = 8
    """How many."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count is {self.count}, but must be at least 1")


def test_settings_of_a_job(capsys: pytest.CaptureFixture[str]) -> None:
    def settings(line: str) -> Settings:
        return parse_settings(Settings, line.split(), prog="job", summary="Does it.")

    assert settings("a/b --count 3") == Settings(run=Path("a/b"), count=3)
    for line, says in {"": "run", "a --cuont 3": "did you mean count?", "a --count x": "--count", "a --count 0": "at least 1"}.items():
        with pytest.raises(ValueError, match=says.replace("?", "[?]")):
            settings(line)
    with pytest.raises(SystemExit) as stop:
        settings("--help")
    assert stop.value.code == 0
    assert "Does it." in (text := capsys.readouterr().out) and "How many." in text


# Errors ----------------------------------------------------------------------------------------------------------------------


def finish(main: Callable[[list[str]], int | None], monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["job", "--seed", "1"])
    with warnings.catch_warnings(), pytest.raises(SystemExit) as stop:  # run_main turns warnings down for good
        run_main(main)
    return stop.value.code


def test_run_main_hands_on_words_and_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    assert finish(seen.append, monkeypatch) == 0
    assert seen == [["--seed", "1"]]
    assert finish(lambda _: 3, monkeypatch) == 3


def test_a_word_that_is_no_text_is_refused_before_anything_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["job", "--prompt", os.fsdecode("naïve café".encode() + b" caf\xe9.txt")])
    with warnings.catch_warnings(), pytest.raises(SystemExit) as stop:
        run_main(lambda _: 0)
    assert stop.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("error: the word 'naïve café caf\\xe9.txt' of the command line is not text in UTF-8")


@pytest.mark.parametrize("error", [ValueError("a  b\nc"), FileNotFoundError("no such run"), ConnectionError("nobody there")])
def test_a_users_error_is_one_paragraph(error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: list[str]) -> None:
        raise error

    assert finish(main, monkeypatch) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "\n\n" not in said and "Traceback" not in said
    assert " ".join(str(error).split()) in said


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ELF_DEBUG", "1")
    assert finish(lambda _: int("x"), monkeypatch) == 2
    assert "Traceback" in capsys.readouterr().err


def test_debug_shows_no_secret(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "hunter2"  # a traceback shows the lines of the source as well

    def main(_: list[str]) -> None:
        try:
            raise OSError(f"no way to http://me:{secret}@host/")
        except OSError as error:
            raise ValueError(f"postgresql://me:{secret}@db/mlflow") from error

    monkeypatch.setenv("ELF_DEBUG", "1")
    assert finish(main, monkeypatch) == 2
    said = capsys.readouterr().err
    assert secret not in said and said.count("***@") >= 3 and "Traceback" in said


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def main(_: list[str]) -> None:
        raise KeyboardInterrupt

    assert finish(main, monkeypatch) == 130


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["job"])
    with warnings.catch_warnings(), pytest.raises(ZeroDivisionError):
        run_main(lambda _: 1 // 0)


def test_system_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError) as failed:
        (tmp_path / "missing").read_text()
    paragraph = " ".join(error_paragraph(failed.value).split())
    assert f"{tmp_path}/missing: No such file or directory" in paragraph
    assert "ELF_DEBUG=1" in paragraph  # not raised by our own code, so the place may matter


def test_long_messages_are_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = error_paragraph(ValueError("word " * 60)).splitlines()
    assert len(lines) > 4 and max(map(len, lines)) <= 60


def test_rays_wrappers_are_taken_off() -> None:
    error = ValueError("train.steps is 0")
    assert root_cause(error) is error
    task = RayTaskError("f", "Traceback ...", error)
    assert root_cause(task.as_instanceof_cause()) is error
    assert root_cause(WorkerGroupError("...", {1: OSError("later"), 0: task})) is error
    assert root_cause(ControllerError(error)) is error
    crash = WorkerCrashedError()
    assert root_cause(crash) is crash


def test_rays_own_errors_are_a_paragraph(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: list[str]) -> None:
        raise WorkerGroupError("...", {0: WorkerCrashedError()})

    assert finish(main, monkeypatch) == 2
    assert "The worker died unexpectedly" in capsys.readouterr().err


def test_an_error_in_a_task_is_the_users_error(ray_cluster: Cluster) -> None:
    @ray.remote
    def task() -> None:
        raise ValueError("the corpus is empty")

    with pytest.raises(Exception, match="the corpus is empty") as failed:
        ray.get(task.remote())
    cause = root_cause(failed.value)
    assert type(cause) is ValueError and str(cause) == "the corpus is empty"


@pytest.mark.slow
def test_an_error_in_a_training_worker_is_the_users_error(ray_cluster: Cluster, tmp_path: Path) -> None:
    from ray.train import RunConfig as TrainRunConfig
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    def worker() -> None:
        raise ValueError("the data folder is gone")

    trainer = TorchTrainer(
        worker, scaling_config=ScalingConfig(num_workers=2), run_config=TrainRunConfig(name="refused", storage_path=str(tmp_path))
    )
    with pytest.raises(Exception, match="the data folder is gone") as failed:
        trainer.fit()
    cause = root_cause(failed.value)
    assert type(cause) is ValueError and str(cause) == "the data folder is gone"


def test_elastic_workers_on_the_command_line() -> None:
    def workers(*words: str) -> tuple[int, int]:
        train = parse_run_config(["tiny", "--train.global_batch", "12", *words]).config.train
        return train.min_workers, train.workers

    assert workers("--train.workers", "1:3") == workers("--train.workers=1:3") == (1, 3)
    assert workers("--train.workers", "1:3", "--train.workers", "2") == (0, 2)
    for bad in ("0:2", ":2", "2:", "2:1", "2:2", "a:b", "1:2:3"):
        with pytest.raises(ValueError, match="is no range of workers; write 1:2"):
            workers("--train.workers", bad)
