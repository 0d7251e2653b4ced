"""A run name belongs to one configuration and one data set."""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from elf_platform.config import RunConfig
from elf_platform.config_io import read_config
from elf_platform.identity import resolve
from elf_platform.lock import exclusive
from elf_platform.pretrain import check_same, claim_run
from elf_platform.recipes import tiny


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return resolve(replace(tiny(), name="mine", storage=tmp_path), "tiny")


def test_the_same_settings_find_the_same_run(config: RunConfig) -> None:
    folder = claim_run(config, "tiny")
    assert claim_run(config, "tiny") == folder
    assert read_config(folder / "config.json")[0] == config


def test_a_taken_name_is_refused_naming_what_differs(config: RunConfig) -> None:
    folder = claim_run(config, "tiny")
    before = (folder / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"name mine is taken .*optim\.lr: \S+ -> 0\.5.*--name"):
        claim_run(replace(config, optim=replace(config.optim, lr=0.5)), "tiny")
    assert (folder / "config.json").read_bytes() == before, "a refused command changes nothing"


def test_other_workers_may_continue_a_run(config: RunConfig) -> None:
    folder = claim_run(config, "tiny")
    claim_run(replace(config, train=replace(config.train, workers=2)), "tiny")
    assert read_config(folder / "config.json")[0].train.workers == 2
    (folder / "summary.json").write_text("{}")
    claim_run(config, "tiny")
    assert read_config(folder / "config.json")[0].train.workers == 2, "the record of a finished run was changed"


def test_a_run_in_use_is_refused_naming_who_holds_it(config: RunConfig) -> None:
    folder = claim_run(config, "tiny")
    in_use = pytest.raises(ValueError, match=f"the run mine is in use by process {os.getpid()} on .*--name")
    with exclusive(folder, "the run mine"), in_use, exclusive(folder, "the run mine"):
        pass
    with exclusive(folder, "the run mine"):
        pass


def test_a_second_one_can_wait(tmp_path: Path) -> None:
    told: list[str] = []
    order: list[str] = []

    def second() -> None:
        with exclusive(tmp_path, "it", wait=told.append):
            order.append("second")

    thread = threading.Thread(target=second)
    with exclusive(tmp_path, "it"):
        thread.start()
        while not told:
            time.sleep(0.01)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"] and len(told) == 1 and "waiting" in told[0]


def test_a_run_does_not_go_on_with_other_data(config: RunConfig) -> None:
    folder = claim_run(config, "tiny")
    check_same(folder / "data.sha256", "a" * 64, "data", "the corpus has changed")
    check_same(folder / "data.sha256", "a" * 64, "data", "the corpus has changed")
    with pytest.raises(ValueError, match="the corpus has changed"):
        check_same(folder / "data.sha256", "b" * 64, "data", "the corpus has changed")
