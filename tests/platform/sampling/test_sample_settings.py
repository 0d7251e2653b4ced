"""Sampling starts from the settings that the artefact keeps: single options override, and what they leave without effect goes."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from sample_folders import task_of
from small_artefact import edit_config, small_artefact

from elf.artefact import Columns, load_artefact
from elf.processes import Autoregressive
from elf.sampling.config import SampleConfig
from elf_platform.cli import parse_settings
from elf_platform.recipes import RECIPES
from elf_platform.sampling.command import SampleCommand, Task, check, with_given
from elf_platform.sampling.job import print_samples
from elf_platform.sampling.settings import SETTINGS, sampler_settings, settings_words

KEPT = SampleConfig(sampler="sde", steps=5, gamma=1.0, guidance=1.5, grid="warped", grid_density=(2.0, 1.0), sde_update="original", count=3)


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_artefact(tmp_path_factory.mktemp("artefacts") / "kept", sample=KEPT, columns=Columns(source="src", text="tgt"))


def task(folder: Path, *words: str) -> Task:
    argv = [str(folder), *words]
    return check(with_given(parse_settings(SampleCommand, argv, prog="sample"), argv), load_artefact(folder), threads=1)


def test_an_artefact_keeps_its_settings_and_columns(artefact: Path) -> None:
    loaded = load_artefact(artefact)
    assert loaded.sample == SampleConfig(**(asdict(KEPT) | {"count": SampleConfig().count}))
    assert loaded.columns == Columns(source="src", text="tgt")
    assert '"count"' not in (artefact / "config.json").read_text(), "how many samples is no property of a model"


def test_without_options_the_settings_are_the_artefacts(artefact: Path) -> None:
    found = task(artefact)
    assert {name: getattr(found.config, name) for name in SETTINGS} == {name: getattr(KEPT, name) for name in SETTINGS}
    assert found.config.count == SampleConfig().count and found.run.settings["steps"] == 5
    assert "sde with 5 steps, gamma 1, warped grid over 2 parts, guidance 1.5" in found.settings
    assert found.settings.endswith("(the artefact's own settings)")


def test_an_option_wins_even_where_it_is_the_general_default(artefact: Path) -> None:
    default = SampleConfig()
    found = task(artefact, "--steps", str(default.steps), "--guidance=3.0")
    assert (found.config.steps, found.config.guidance, found.config.gamma) == (default.steps, 3.0, KEPT.gamma)
    assert "the artefact's own settings, with steps, guidance as given" in found.settings


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (("--grid", "uniform"), {"grid": "uniform", "grid_density": ()}),
        (("--sampler", "ode"), {"sampler": "ode", "sde_update": "renoised"}),
        (("--grid_density", "1", "2", "3"), {"grid_density": (1.0, 2.0, 3.0)}),
        (("--gamma", "0.5"), {"gamma": 0.5}),
    ],
)
def test_what_an_option_leaves_without_effect_goes(artefact: Path, words: tuple[str, ...], changed: dict[str, Any]) -> None:
    expected = asdict(KEPT) | changed | {"count": SampleConfig().count}
    assert asdict(task(artefact, *words).config) == expected


def test_guidance_and_times_follow_the_given_one() -> None:
    kept = SampleConfig(cfg=2.0, cfg_rule="paper", guidance_from=0.2, guidance_to=0.4)
    assert sampler_settings(kept, {"cfg": 1.0}, process="elf", count=1).cfg_rule == "code"
    assert sampler_settings(kept, {"cfg_rule": "joint"}, process="elf", count=1).cfg == 2.0
    found = sampler_settings(kept, {"guidance_from": 0.5}, process="elf", count=1)
    assert (found.guidance_from, found.guidance_to) == (0.5, 1.0)
    with pytest.raises(ValueError, match=r"cfg_rule paper has no effect with sample\.cfg 1"):
        sampler_settings(kept, {"cfg": 1.0, "cfg_rule": "paper"}, process="elf", count=1)
    with pytest.raises(ValueError, match="unknown sampling setting stepps"):
        sampler_settings(None, {"stepps": 1}, process="elf", count=1)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_settings_of_every_recipe_can_be_kept_and_sampled_with(recipe: str) -> None:
    """Those of autoregressive recipes too, which carry settings along that have no effect."""
    config = RECIPES[recipe]()
    found = sampler_settings(config.sample, {}, process=config.process.kind, count=config.sample.count)
    config.process.check_sampling(found, conditional=bool(config.data.source_column))
    carried = {"steps", "gamma", "guidance"} if isinstance(config.process, Autoregressive) else set()
    assert {name for name, value in asdict(found).items() if value != getattr(config.sample, name)} <= carried
    assert ("left to right" in settings_words(found, config.process.kind)) == isinstance(config.process, Autoregressive)


def test_an_autoregressive_artefact_may_keep_what_its_recipe_carries(tmp_path: Path) -> None:
    folder = small_artefact(tmp_path / "ar", Autoregressive(), sample=SampleConfig(steps=4, guidance=1.5, temperature=0.7))
    found = task(folder)
    assert found.config.temperature == 0.7 and found.config.steps == SampleConfig().steps
    with pytest.raises(ValueError, match="--guidance 2.0 has no effect with the process autoregressive"):
        task(folder, "--guidance", "2")


def test_an_older_artefact_samples_with_the_defaults_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = small_artefact(tmp_path / "old")
    assert load_artefact(folder).sample is None and load_artefact(folder).columns is None
    print_samples(SampleCommand(artefact=folder, count=1, steps=2, gpu="off", threads=1))
    said = capsys.readouterr().err
    assert "sampler: sde with 2 steps" in said
    assert "general defaults, since the artefact keeps no settings of its own, with steps as given" in " ".join(said.split())
    assert task_of(folder).config == SampleConfig(steps=3)


def test_kept_settings_that_are_wrong_are_refused(tmp_path: Path) -> None:
    folder = small_artefact(tmp_path / "edited", sample=KEPT)
    edit_config(folder, lambda config: config["sample"].update(stepps=3))
    with pytest.raises(ValueError, match=r"unknown setting sample\.stepps; the nearest known one is steps"):
        load_artefact(folder)
    edit_config(folder, lambda config: config.update(sample=[1]))
    with pytest.raises(ValueError, match="lacks parts of an artefact's configuration"):
        load_artefact(folder)
