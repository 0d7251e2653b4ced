"""A run folder is data: whatever its files hold, it is read, or refused in one paragraph, and leads nowhere by itself."""

import contextlib
import copy
import io
import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elf_platform.claim import examine
from elf_platform.cli import parse_run_config
from elf_platform.config import RunConfig, TrackingConfig
from elf_platform.extend import extend_command, show_command
from elf_platform.identity import resolve
from elf_platform.recipes import tiny
from elf_platform.report import write_report
from elf_platform.summary import print_summary
from elf_platform.tracking import RunHandle
from elf_platform.tracking.listing import list_runs
from elf_platform.tracking.status import describe

ODD: tuple[Any, ...] = (None, 10**400, float("inf"), "x", [1], {"changed": 3})


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setenv("ELF_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return resolve(replace(tiny(), name="mine"), "tiny")


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something else may stand in a plain value."""
    yield above
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*above, key))


def put(value: Any, place: tuple[Any, ...], odd: Any) -> Any:
    if not place:
        return odd
    result = copy.deepcopy(value)
    table = result
    for key in place[:-1]:
        table = table[key]
    table[place[-1]] = odd
    return result


def trained(config: RunConfig) -> Path:
    claim = examine(config, "tiny")
    claim.take(data="a" * 64, codec="b" * 64)
    (claim.folder / "checkpoints/step-00000004").mkdir(parents=True)
    RunHandle(kind="mlflow", uri="http://host:1", experiment="e", run_id="r", key="k").save(claim.folder)
    lines = {
        "metrics.jsonl": {"step": 4, "time": 1.0, "metrics": {"train/loss": 1.5}},
        "events.jsonl": {"step": 4, "time": 1.0, "kind": "attempt", "text": "x"},
        "summary.json": {"steps": 4.0, "made_with": "x", "sample/empty": 0.5, "command/more": "rm -r ~"},
    }
    for name, line in lines.items():
        (claim.folder / name).write_text(json.dumps(line) + "\n")
    plain = json.loads((claim.folder / "config.json").read_text())
    plain["history"] = [{"time": "t", "step": 1, "changed": {"train.steps": [1, 2]}}]
    (claim.folder / "config.json").write_text(json.dumps(plain))
    return claim.folder


def quietly(reader: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def read(folder: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            reader(folder)

    return read


@pytest.mark.parametrize("name", ["config.json", "tracking.json", "summary.json", "metrics.jsonl", "events.jsonl"])
def test_odd_values_in_a_run_folder_are_read_or_refused(name: str, config: RunConfig) -> None:
    folder = trained(config)
    plain = json.loads((folder / name).read_text())
    readers: list[Callable[[Path], Any]] = [lambda _: list_runs(config.storage), describe]
    chosen = list(places(plain))
    if name == "config.json":
        readers += [lambda _: examine(config, "tiny"), lambda _: examine(replace(config, name="other"), "tiny")]
        chosen = [place for place in chosen if place and place[0] in ("history", "format", "recipe", "train") and len(place) < 4]
        chosen = [place for place in chosen if place[0] != "train" or len(place) == 1]
    if name == "summary.json":
        readers += [lambda _: examine(config, "tiny"), quietly(print_summary)]
    for place in chosen:
        for odd in ODD:
            (folder / name).write_text(json.dumps(put(plain, place, odd)) + "\n")
            for reader in readers:
                with contextlib.suppress(ValueError, OSError):
                    reader(folder)
    (folder / name).write_text(json.dumps(put(plain, chosen[-1], 10**400)) + "\n")
    quietly(write_report)(folder)


def test_no_command_comes_from_a_folder(config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained(config)
    print_summary(folder)
    assert "rm -r" not in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--config", "--extend"])
def test_a_tracking_server_is_named_by_the_user(option: str, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "http://elsewhere:5000"
    folder = trained(replace(config, tracking=TrackingConfig(uri=uri)))
    with pytest.raises(ValueError, match=f"figures to {uri}, which you have not named.*--tracking.uri {uri}"):
        parse_run_config([option, str(folder)]).check_store()
    found = parse_run_config([option, str(folder), "--tracking.uri", uri])
    found.check_store()
    parse_run_config([option, str(folder), "--tracking.uri="]).check_store()
    for command in (show_command(found.config), extend_command(found.config, found.config)):
        words = shlex.split(command)
        assert words[words.index("--tracking.uri") + 1] == uri
        parse_run_config(words[2:]).check_store()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    parse_run_config([option, str(folder)]).check_store()
    assert uri not in show_command(found.config)
