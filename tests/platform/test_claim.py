"""A run name belongs to one configuration and one data set."""

from dataclasses import replace
from pathlib import Path

import pytest

from elf_platform.config import RunConfig
from elf_platform.config_io import read_config, resolve
from elf_platform.pretrain import check_data, claim_run
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
    claim_run(config, "tiny")
    claim_run(replace(config, train=replace(config.train, workers=2)), "tiny")


def test_a_run_does_not_go_on_with_other_data(config: RunConfig) -> None:
    folder = claim_run(config, "tiny")
    check_data(folder, "a" * 64)
    check_data(folder, "a" * 64)
    with pytest.raises(ValueError, match="the corpus has changed"):
        check_data(folder, "b" * 64)
