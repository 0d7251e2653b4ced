"""Every setting of every recipe and kind with values that nobody means: refused at once in one paragraph that names it, or let through
by all checks, in which case the run works (``tests/platform/test_odd_settings_run.py``)."""

import dataclasses
import json
import math
import os
import shlex
import tempfile
import time
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text
from sqlalchemy.engine import make_url

from elf.codecs import CODECS
from elf.processes import PROCESSES
from elf_platform.check import check_run
from elf_platform.cli import error_paragraph, parse_run_config, parse_settings
from elf_platform.config import RunConfig
from elf_platform.config_io import flatten, from_dict, to_dict, write_config
from elf_platform.data.command import PrepareWords, sort_prepare_words
from elf_platform.evaluate.command import CompareCommand, EvaluateCommand
from elf_platform.import_official import ImportConfig
from elf_platform.recipes import RECIPES, tiny
from elf_platform.sampling.command import SampleCommand
from elf_platform.tracking.runs import store_uri
from elf_platform.writable import check_place

NUMBERS: list[Any] = [math.inf, -math.inf, math.nan, -1, -0.5, 0, 1, 10**12, 10**30, 1e308, 10**400, "x"]
TEXTS: list[Any] = ["", " ", "a\nb", "\x1b[31m", "\x00", "\ud800", "[bold]x[/nope]", "Ünï кот 猫", "?%#&", "x" * 5000, "../..", "-x", 3]
BASE = dataclasses.replace(tiny(), codec=CODECS["table"]())
KINDS = [
    BASE,
    *(dataclasses.replace(tiny(), codec=CODECS[kind]()) for kind in CODECS if kind != "table"),
    *(dataclasses.replace(BASE, process=PROCESSES[kind]()) for kind in PROCESSES if kind != BASE.process.kind),
]
"""Every codec and every process once; what is common to all of them is tried with the first."""


def odd_values(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [None, 2, "maybe", math.nan]
    if isinstance(value, int | float):
        return NUMBERS
    if isinstance(value, str):
        return TEXTS
    inner = NUMBERS if value and isinstance(value[0], float) else [*TEXTS, math.nan]
    return [[odd] for odd in inner] + [[odd, odd] for odd in inner]


def with_leaf(config: RunConfig, path: str, value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = to_dict(config)
    *tables, leaf = path.split(".")
    table = plain
    for name in tables:
        table = table[name]
    table[leaf] = value
    return plain


def tried(make: Callable[[], Any], path: str, *, within: float = 2.0) -> Any:
    """What ``make`` gives, or None when it refuses as users are refused: an error of theirs, at once, in one paragraph that any terminal
    and log can take."""
    started = time.monotonic()
    try:
        result = make()
    except (ValueError, OSError) as error:
        paragraph = error_paragraph(error)
        assert paragraph.startswith("error: ") and "\n\n" not in paragraph and len(paragraph) < 2500, paragraph
        assert all(c == "\n" or c.isprintable() for c in paragraph), paragraph
        paragraph.encode("utf-8")
        assert path.rsplit(".", 1)[-1] in str(error) or path.rsplit(".", 2)[-2] in str(error), f"{path}: {error}"
        result = None
    assert time.monotonic() - started < within, f"{path} took {time.monotonic() - started:.1f} s"
    return result


def tried_in(config: RunConfig, path: str, value: Any) -> RunConfig | None:
    """The configuration with this leaf, written and read back; None when it is refused."""
    made: RunConfig | None = tried(lambda: from_dict(RunConfig, with_leaf(config, path, value)), path)
    if made is not None:
        written = json.dumps(to_dict(made), allow_nan=False, ensure_ascii=False).encode("utf-8")
        assert from_dict(RunConfig, json.loads(written)) == made, path
    return made


@pytest.mark.parametrize("config", KINDS, ids=lambda config: f"{config.codec.kind}-{config.process.kind}")
def test_no_odd_value_of_any_setting_ends_in_a_traceback(config: RunConfig) -> None:
    common = flatten(BASE) if config is not BASE else {}
    paths = {path: known for path, known in flatten(config).items() if path not in common or path.endswith(".kind")}
    values = [(path, odd) for path, known in paths.items() for odd in odd_values(known)]
    accepted = [path for path, odd in values if tried_in(config, path, odd) is not None]
    assert len(accepted) < 0.6 * len(values)
    assert config is not BASE or len(accepted) > 100


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_recipe_takes_a_number_that_is_none(recipe: str) -> None:
    config = RECIPES[recipe]()
    for path, known in flatten(config).items():
        if isinstance(known, int | float) and not isinstance(known, bool):
            for odd in (math.nan, math.inf, 10**30 if isinstance(known, int) else -math.inf):
                assert tried_in(config, path, odd) is None, path


COMMANDS: list[Callable[..., Any]] = [
    lambda **values: SampleCommand(**({"artefact": Path("a")} | values)),
    lambda **values: EvaluateCommand(**({"subject": Path("a")} | values)),
    lambda **values: CompareCommand(**({"records": (Path("a"),)} | values)),
    lambda **values: ImportConfig(**({"source": "a", "out": Path("b")} | values)),
    PrepareWords,
]


@pytest.mark.parametrize("make", COMMANDS, ids=["sample", "evaluate", "compare", "import", "prepare"])
def test_no_odd_value_of_a_job_ends_in_a_traceback(make: Callable[..., Any]) -> None:
    command = make()
    refused = 0
    for field in dataclasses.fields(command):
        known, hint = getattr(command, field.name), typing.get_type_hints(type(command))[field.name]
        kinds = {hint, *typing.get_args(hint)}
        odd: list[Any] = [Path(text) for text in TEXTS if isinstance(text, str)] if Path in kinds else []
        odd += (TEXTS if str in kinds else []) + (NUMBERS if kinds & {int, float} else [])
        for value in odd:
            value = (value,) if isinstance(known, tuple) else value
            made = tried(lambda field=field, value=value: make(**{field.name: value}), field.name)  # type: ignore[misc]
            refused += made is None
            if made is not None and isinstance(value, int | float):
                assert math.isfinite(value), field.name
    assert refused > 3


def let_through(config: RunConfig, storage: Path) -> Iterator[tuple[str, Any]]:
    """The leaves and odd values that all checks before a run let through."""
    for path, known in flatten(config).items():
        for odd in odd_values(known):
            plain = with_leaf(config, path, odd) | ({} if path == "storage" else {"storage": str(storage)})
            if tried(lambda plain=plain: checked(plain), path, within=10.0):
                yield path, odd


def checked(plain: dict[str, Any]) -> bool:
    check_run(dataclasses.replace(from_dict(RunConfig, plain), name="odd"))
    return True


@pytest.mark.slow
@pytest.mark.parametrize("config", [BASE, tiny(), KINDS[-2]], ids=lambda config: f"{config.codec.kind}-{config.process.kind}")
def test_what_the_checks_let_through_can_run(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all odd values only those are left that mean something: zeros that switch off, rhythms beyond the end, and odd names."""
    monkeypatch.setenv("ELF_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    left = list(let_through(config, tmp_path))
    assert len(left) > 50
    harmless = ("_every", "valid_rows", "keep", "window", "max_bad_steps", "spike_factor", "clip_norm", "seed", "rope_theta")
    huge = [path for path, odd in left if isinstance(odd, int | float) and abs(odd) > 1e6 and not path.endswith(harmless)]
    unused = ("codec.", "network.bottleneck", "network.prefix_tokens") if not config.process.needs_codec else ("codec.network.",)
    assert [path for path in huge if not path.startswith(unused)] == []
    assert not [odd for _, odd in left if isinstance(odd, float) and not math.isfinite(odd)]


def test_odd_values_on_the_command_line() -> None:
    leaves = [path for path in flatten(tiny()) if not path.endswith(".kind")]
    words = ["nan", "inf", "-1", str(10**30), "", "Ünï[x]", "a\nb", "1e999", "--"]
    for i, path in enumerate(leaves[::4]):
        word = words[i % len(words)]
        tried(lambda path=path, word=word: parse_run_config([f"--{path}={word}"]), path, within=5.0)  # type: ignore[misc]


@pytest.mark.parametrize("line", ["--count nan", "--steps -1", f"--seed {2**70}", "--gamma inf", "--cfg="])
def test_odd_values_of_jobs_on_the_command_line(line: str) -> None:
    words = ["a", *line.split()]
    assert tried(lambda: parse_settings(SampleCommand, words, prog="job"), words[1].lstrip("-").rstrip("=")) is None
    assert tried(lambda: sort_prepare_words(["--workers", words[-1]]), "workers") is None


@given(text=st.text(max_size=300) | st.binary(max_size=40).map(os.fsdecode))
@settings(max_examples=300, deadline=None)
def test_any_name_is_refused_or_is_a_folder_as_it_is(text: str) -> None:
    made = tried(lambda: dataclasses.replace(tiny(), name=text), "name")
    if made is None or not text:
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / text).mkdir()
        (Path(folder) / f".{text}.writing-00000000.lock").mkdir()
        assert text in os.listdir(folder) and shlex.split(f"x --name {text}") == ["x", "--name", text]
        assert Text.from_markup(text).plain == text  # rich shows it as it is
        assert quote(text, safe="+=@,") == text  # and so does an address


@given(text=st.text(max_size=80) | st.binary(max_size=40).map(os.fsdecode))
@settings(max_examples=25, deadline=None)
def test_any_storage_is_refused_or_holds_a_run(text: str) -> None:
    """From the command line to the folder: what is let through can be made, and config.json leads back to it."""
    with tempfile.TemporaryDirectory() as folder:
        place = os.path.join(folder, text.replace("/", "").replace("\0", "") or "x")
        run = tried(lambda: parse_run_config(["tiny", "--name", "n", "--storage", place]), "storage")
        if run is None or tried(lambda: check_place(run.config.storage / "runs" / "n", "storage") or True, "storage") is None:
            return
        (run.config.storage / "runs/n").mkdir(parents=True)
        write_config(run.config.storage / "runs/n/config.json", run.config, recipe="tiny", code_version="0")
        assert parse_run_config(["--config", str(run.config.storage / "runs/n"), "--name", "n"]).config == run.config
        uri = store_uri("", run.config.storage)
        database = make_url(uri).database
        assert database is not None and Path(database) == run.config.storage / "mlflow.db"
