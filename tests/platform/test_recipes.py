"""Recipes hold the published numbers (elf.md A.7, B and C.2) and build the published networks."""

import inspect

import pytest

from elf_platform.cli import describe_run
from elf_platform.config_io import flatten
from elf_platform.identity import diff_configs
from elf_platform.recipes import DEFAULT, RECIPES

OWT = ("owt-elf-b", "owt-elf-m", "owt-elf-l")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_and_says_what_it_is(name: str) -> None:
    config = RECIPES[name]()
    assert config == RECIPES[name]()
    assert config.name == ""
    (line,) = (inspect.getdoc(RECIPES[name]) or "").splitlines()
    assert 30 < len(line) < 120


def test_the_default_exists() -> None:
    assert DEFAULT in RECIPES


@pytest.mark.parametrize(
    ("name", "steps", "parameters", "matrices", "others"),
    [
        ("owt-elf-b", 95_085, 104_579_940, 58, 109),
        ("owt-elf-m", 76_068, 342_540_036, 106, 205),
        ("owt-elf-l", 57_051, 652_103_332, 138, 269),
    ],
)
def test_the_published_models(name: str, steps: int, parameters: int, matrices: int, others: int) -> None:
    config = RECIPES[name]()
    assert config.train.steps == steps
    shown = describe_run(config, vocab_size=32_100, channels=512)
    assert f"parameters: {parameters:,};" in shown
    assert f"\nmuon: {matrices} tensors" in shown
    assert f"\nadam: {others} tensors" in shown


@pytest.mark.parametrize("name", OWT)
def test_the_published_setting(name: str) -> None:
    config = RECIPES[name]()
    published = {
        "train.global_batch": 512,
        "train.precision": "bf16",
        "data.length": 1024,
        "data.packing": "document",
        "data.tokenizer.source": "hub:google-t5/t5-small",
        "codec.kind": "t5",
        "codec.source": "hub:google-t5/t5-small",
        "codec.latent_mean": 0.0,
        "codec.latent_std": 0.2,
        "optim.name": "muon",
        "optim.lr": 2e-3,
        "optim.momentum": 0.95,
        "optim.betas": [0.9, 0.999],
        "optim.eps": 1e-8,
        "optim.weight_decay": 0.0,
        "optim.clip_norm": 1.0,
        "optim.warmup_steps": 9_508,
        "optim.decay": "constant",
        "optim.ema_decay": 0.9999,
        "process.kind": "elf",
        "process.noise_scale": 2.0,
        "process.time_mean": -1.5,
        "process.time_std": 0.8,
        "process.t_eps": 0.05,
        "process.decoder_prob": 0.2,
        "process.decoder_level_mean": 0.8,
        "process.decoder_level_std": 0.8,
        "process.decoder_noise_scale": 5.0,
        "process.self_cond_prob": 0.5,
        "process.guidance_min": 0.5,
        "process.guidance_max": 5.0,
        "process.loss_on_padding": False,
        "network.bottleneck": 128,
        "network.prefix_tokens": 4,
        "network.dropout": 0.0,
        "network.rope_theta": 1e4,
        "sample.sampler": "sde",
        "sample.steps": 32,
        "sample.gamma": 1.5,
        "sample.guidance": 3.0,
        "sample.grid": "logit-normal",
    }

    flat = flatten(config)
    assert {path: flat[path] for path in published} == published


@pytest.mark.parametrize(
    ("name", "length", "source_length", "steps"), [("wmt14-de-en", 128, 64, 880_600), ("xsum", 1088, 1024, 39_800)]
)
def test_the_published_conditional_setting(name: str, length: int, source_length: int, steps: int) -> None:
    """elf.md A.3, A.6, B and C.2; what is not named here is as for OpenWebText."""
    published = {
        "data.length": length,
        "data.source_length": source_length,
        "data.packing": "document",
        "train.steps": steps,
        "train.global_batch": 512,
        "optim.warmup_steps": 5_000,
        "process.decoder_noise_scale": 1.0,
        "process.loss_on_padding": True,
        "process.condition_drop_prob": 0.1,
        "sample.sampler": "ode",
        "sample.steps": 64,
        "sample.guidance": 1.0,
        "sample.cfg": 2.0,
    }
    flat, owt = flatten(RECIPES[name]()), flatten(RECIPES["owt-elf-b"]())
    assert {path: flat[path] for path in published} == published
    same = [path for path in flat if path.startswith(("process.", "network.", "optim.", "codec.")) and path not in published]
    assert {path: flat[path] for path in same} == {path: owt[path] for path in same}
    assert "parameters: 104,579,940;" in describe_run(RECIPES[name](), vocab_size=32_100, channels=512)


def test_the_small_recipes_differ_in_the_process_alone() -> None:

    lines = diff_configs(RECIPES["tiny"](), RECIPES["ar-tiny"]())
    assert [line.split(":")[0] for line in lines] == ["codec.kind", "process.kind"]
