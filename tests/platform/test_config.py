"""Configurations as plain tables: nothing is lost, nothing unknown or wrong gets in, and the hash sees what decides results."""

import dataclasses
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elf.codecs import CODECS, OwnConfig, TableConfig
from elf.optim.config import OptimConfig
from elf.processes import PROCESSES, Autoregressive, EmbeddedFlow
from elf_platform import config_io
from elf_platform.config import DataConfig, EngineConfig, RunConfig, TokenizerConfig, TrackingConfig, TrainConfig
from elf_platform.config_io import (
    default_storage,
    flatten,
    from_dict,
    from_record,
    read_config,
    read_history,
    to_dict,
    to_record,
    unknown_key,
    write_config,
)
from elf_platform.identity import (
    AFTERWARDS,
    RESULT_FREE,
    compare,
    config_hash,
    default_name,
    diff_configs,
    is_automatic,
    resolve,
    role_of,
    training_differences,
)
from elf_platform.recipes import RECIPES, tiny

BASE = RunConfig(codec=OwnConfig(), process=EmbeddedFlow())


def with_leaf(plain: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(plain))
    *tables, leaf = path.split(".")
    table = copy
    for name in tables:
        table = table[name]
    table[leaf] = value
    return copy


def parse(plain: dict[str, Any]) -> RunConfig:
    return from_dict(RunConfig, plain)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("process", PROCESSES)
def test_json_round_trip_of_every_kind(recipe: str, codec: str, process: str) -> None:
    config = dataclasses.replace(RECIPES[recipe](), codec=CODECS[codec](), process=PROCESSES[process](), storage=Path("/data/elf"))
    assert parse(json.loads(json.dumps(to_dict(config)))) == config


@settings(max_examples=50, deadline=None)
@given(
    paths=st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1), max_size=3),
    lr=st.floats(min_value=1e-12, max_value=100),
    seed=st.integers(min_value=0, max_value=2**63 - 1),
    name=st.from_regex(r"([A-Za-z0-9][A-Za-z0-9._+=@,-]{0,20})?", fullmatch=True),
)
def test_json_round_trip_of_odd_values(paths: list[str], lr: float, seed: int, name: str) -> None:
    config = tiny()
    config = dataclasses.replace(
        config,
        name=name,
        seed=seed,
        data=dataclasses.replace(config.data, paths=tuple(paths)),
        optim=dataclasses.replace(config.optim, lr=lr),
    )
    assert parse(json.loads(json.dumps(to_dict(config)))) == config


def test_missing_keys_take_their_defaults() -> None:
    plain = {"codec": {"kind": "table"}, "process": {"kind": "autoregressive"}, "train": {"steps": 7}}
    assert parse(plain) == RunConfig(codec=TableConfig(), process=Autoregressive(), train=TrainConfig(steps=7))


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("optim.lrr", 1.0, ["optim.lrr", "did you mean optim.lr?"]),
        ("data.tokenizer.vocab", 10, ["data.tokenizer.vocab", "data.tokenizer.vocab_size"]),
        ("codec.network.dept", 3, ["codec.network.dept", "codec.network.depth"]),
        ("trian", {}, ["trian", "did you mean train?"]),
        ("optim.lr", "fast", ["optim.lr", '"fast"', "a number"]),
        ("optim.lr", True, ["optim.lr", "true", "a number"]),
        ("train.steps", 1.5, ["train.steps", "1.5", "a whole number"]),
        ("train.steps", True, ["train.steps", "a whole number"]),
        ("data.strict", 1, ["data.strict", "true or false"]),
        ("optim.name", "sgd", ["optim.name", "muon, adamw"]),
        ("optim.betas", [0.9], ["optim.betas", "2 values"]),
        ("optim.betas", [0.9, "x"], ["optim.betas.1", "a number"]),
        ("data.paths", "corpus.txt", ["data.paths", "a list"]),
        ("data.paths", [1], ["data.paths.0", "text"]),
        ("storage", 3, ["storage", "a path"]),
        ("codec", {"kind": "tabel"}, ["codec.kind", "tabel", "did you mean table?"]),
        ("codec", {"channels": 3}, ["codec", "with a kind", "own"]),
        ("process.decoder_prob", 2.0, ["process.decoder_prob", "between 0 and 1"]),
        ("network", 3, ["network", "a table"]),
    ],
)
def test_unknown_keys_and_wrong_values_are_refused_by_path(path: str, value: Any, says: list[str]) -> None:
    with pytest.raises(ValueError) as refused:
        parse(with_leaf(to_dict(tiny()), path, value))
    assert [part for part in says if part not in str(refused.value)] == []


def test_a_configuration_without_codec_is_refused() -> None:
    with pytest.raises(ValueError, match="no codec, which has no default"):
        parse({"process": {"kind": "elf"}})


def test_nearest_key() -> None:
    assert unknown_key("lr", ["codec.lr", "optim.lr", "seed"]) == "unknown setting lr; did you mean codec.lr or optim.lr?"
    assert unknown_key("zzzz", ["alpha", "beta"], what="recipe") == "unknown recipe zzzz; known are alpha, beta."


def leaf_paths(cls: Any, prefix: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from leaf_paths(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def test_result_free_settings_exist() -> None:
    tables = {field.name for field in dataclasses.fields(RunConfig)}
    assert set(leaf_paths(RunConfig)) | tables >= RESULT_FREE | AFTERWARDS


FREE = {
    "name": "x",
    "storage": "/elsewhere",
    "tracking.kind": "null",
    "tracking.experiment": "other",
    "engine.kind": "deepspeed",
    "engine.zero": 3,
    "train.workers": 4,
    "train.gpu": "off",
    "train.threads": 3,
    "train.micro_batch": 8,
    "train.activation_checkpointing": True,
    "train.log_every": 3,
    "train.valid_every": 3,
    "train.sample_every": 3,
    "train.checkpoint_every": 3,
    "train.keep": 9,
    "train.max_failures": 0,
    "data.strict": True,
}
DECIDING = {
    "seed": 1,
    "data.paths": ["a.txt"],
    "data.length": 32,
    "data.tokenizer.vocab_size": 300,
    "codec.channels": 32,
    "codec.network.depth": 2,
    "process.noise_scale": 1.0,
    "network.depth": 2,
    "optim.lr": 1e-3,
    "train.steps": 601,
    "train.global_batch": 32,
    "train.precision": "bf16",
    "train.valid_rows": 8,
}
CONTINUATION = {"train.steps": 601, "data.paths": ["a.txt"], "sample.steps": 8, "sample.seed": 3, "train.judge": "none"} | FREE


@pytest.mark.parametrize("path", FREE)
def test_hash_ignores_where_and_how(path: str) -> None:
    before = BASE
    after = parse(with_leaf(to_dict(before), path, FREE[path]))
    assert after != before
    assert config_hash(after) == config_hash(before)
    assert diff_configs(before, after) == []
    assert len(diff_configs(before, after, everything=True)) == 1


@pytest.mark.parametrize("path", DECIDING)
def test_hash_sees_what_decides(path: str) -> None:
    before = BASE
    after = parse(with_leaf(to_dict(before), path, DECIDING[path]))
    assert config_hash(after) != config_hash(before)
    (line,) = diff_configs(before, after)
    assert line == f"{path}: {json.dumps(flatten(before)[path])} -> {json.dumps(flatten(after)[path])}"


@pytest.mark.parametrize("path", ["sample.steps", "sample.count", "train.judge"])
def test_what_is_made_afterwards_is_seen_and_names_no_run(path: str) -> None:
    after = parse(with_leaf(to_dict(BASE), path, "none" if path == "train.judge" else 3))
    assert config_hash(after) == config_hash(BASE)
    (line,) = diff_configs(BASE, after)
    assert line.startswith(f"{path}: ") and role_of(path) == "afterwards"


@pytest.mark.parametrize("path", sorted({*DECIDING, *CONTINUATION}))
def test_weights_go_on_under_other_continuation_settings_alone(path: str) -> None:
    after = parse(with_leaf(to_dict(BASE), path, (CONTINUATION | DECIDING)[path]))
    assert bool(training_differences(BASE, after)) == (path not in CONTINUATION)


def test_a_default_that_is_not_touched_changes_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later version has one setting more in the run, its optimiser and its codec; only a run that uses one has another name."""
    before = default_name(tiny(), "tiny")
    kinds: dict[str, Any] = {"frozen": True, "kw_only": True}
    optim = dataclasses.make_dataclass("OptimConfig", [("lookahead", int, 0)], bases=(OptimConfig,), **kinds)
    codec = dataclasses.make_dataclass("OwnConfig", [("noise", float, 0.0)], bases=(OwnConfig,), **kinds)
    fields = [("optim", optim, dataclasses.field(default_factory=optim)), ("colour", str, "")]
    run = dataclasses.make_dataclass("RunConfig", fields, bases=(RunConfig,), **kinds)
    monkeypatch.setitem(CODECS, "own", codec)  # type: ignore[arg-type]

    def values(settings: Any) -> dict[str, Any]:
        return {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}

    old = tiny()

    def later(*, colour: str = "", lookahead: int = 0, noise: float = 0.0) -> Any:
        parts = {"optim": optim(**values(old.optim), lookahead=lookahead), "codec": codec(**values(old.codec), noise=noise)}
        return run(**values(old) | parts, colour=colour)

    assert {"colour", "optim.lookahead", "codec.noise"} <= flatten(later()).keys(), "the settings are not there"
    assert default_name(later(), "tiny") == before
    for changed in (later(colour="red"), later(lookahead=3), later(noise=0.5)):
        assert default_name(changed, "tiny") != before


def test_fingerprints_are_over_the_settings_that_they_began_with() -> None:
    """Data and codecs are found by digests over these. A setting that comes to one of them belongs into its ``later``, so that what was
    prepared and trained before is found again; then it is no difference here."""
    plain = to_dict(RunConfig(codec=OwnConfig(), process=EmbeddedFlow()), identity=True)
    network = ["hidden", "depth", "heads", "bottleneck", "prefix_tokens", "dropout", "rope_theta"]
    own = ["kind", "path", "channels", "network", "steps", "global_batch", "lr", "corrupt_prob", "random_share", "seed", "precision"]
    assert list(plain["codec"]) == own and list(plain["codec"]["network"]) == network
    assert list(plain["data"]) == [
        "paths", "text_column", "source_column", "source_length", "split_by", "tokenizer", "length", "packing", "valid_fraction", "strict",
        "shard_mb",
    ]
    assert list(plain["data"]["tokenizer"]) == ["source", "vocab_size", "sample_mb"]


def test_later_settings_change_fingerprints_only_when_they_are_used() -> None:
    later = dataclasses.make_dataclass(
        "DataConfig", [("accents", bool, True), ("table", TokenizerConfig, dataclasses.field(default_factory=TokenizerConfig))],
        bases=(DataConfig,), frozen=True, kw_only=True, namespace={"later": (*DataConfig.later, "accents", "table")},
    )
    assert "accents" in to_dict(later()) and to_dict(later(), identity=True) == to_dict(DataConfig(), identity=True)
    assert to_dict(later(accents=False), identity=True)["accents"] is False
    assert "table" in to_dict(later(table=TokenizerConfig(vocab_size=300)), identity=True)


def test_hash_is_the_same_for_equal_numbers() -> None:
    config = tiny()
    config = dataclasses.replace(config, sample=dataclasses.replace(config.sample, guidance=3.0))
    whole = dataclasses.replace(config, sample=dataclasses.replace(config.sample, guidance=3))  # a float field given an int
    assert config_hash(whole) == config_hash(config)


def test_hash_is_over_values_and_not_their_order() -> None:
    rewritten = parse(json.loads(json.dumps(to_dict(BASE), sort_keys=True)))
    assert config_hash(rewritten) == config_hash(BASE)
    assert len(config_hash(BASE)) == 8


def test_another_kind_is_one_difference() -> None:
    before = BASE
    after = dataclasses.replace(before, codec=TableConfig())
    assert diff_configs(before, after) == ['codec.kind: "own" -> "table"']


def test_written_and_read_back(tmp_path: Path) -> None:
    config = resolve(dataclasses.replace(tiny(), storage=tmp_path), "tiny")
    write_config(tmp_path / "config.json", config, recipe="tiny", code_version="0.1.0")
    assert read_config(tmp_path) == (config, "tiny")
    assert read_config(tmp_path / "config.json") == (config, "tiny")
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]
    assert json.loads((tmp_path / "config.json").read_text())["code_version"] == "0.1.0"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[1]", "not the configuration of a run"),
        (b'{"a": 1}', "not the configuration of a run"),
        (b'{"format": 99, "process": {"kind": "elf"}}', "has format 99, but"),
        (b'{"format": 1, "process": {"kind": "elf"}, "codec": {"kind": "table"}, "sead": 1}', "did you mean seed"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_config(tmp_path)


def test_older_formats_are_brought_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A setting that was renamed, one that moved into another table and one that is gone, over two formats."""
    plain = to_dict(tiny()) | {"format": 1, "recipe": "tiny", "code_version": "0.1.0", "begin": 7}
    plain["optim"]["speed"] = plain["optim"].pop("lr")
    plain["train"]["magic"] = 3
    del plain["seed"]
    monkeypatch.setattr(config_io, "FORMAT", 3)
    renamed = {1: {"optim.speed": "train.rate", "train.magic": ""}, 2: {"train.rate": "optim.lr", "begin": "seed"}}
    monkeypatch.setattr(config_io, "RENAMED", renamed)
    (tmp_path / "config.json").write_text(json.dumps(plain))
    assert read_config(tmp_path) == (dataclasses.replace(tiny(), seed=7), "tiny")
    assert to_record(tiny())["format"] == 3 and from_record(to_record(tiny())) == tiny()


def test_every_older_format_has_its_table() -> None:
    assert sorted(config_io.RENAMED) == list(range(1, config_io.FORMAT))


def test_a_checkpoint_of_before_formats_were_kept_in_them() -> None:
    assert from_record(to_dict(tiny())) == tiny()


def test_history_is_kept_beside_the_settings(tmp_path: Path) -> None:
    history = [{"step": 40, "changed": {"train.steps": [40, 80]}}]
    write_config(tmp_path / "config.json", tiny(), recipe="tiny", code_version="0.1.0", history=history)
    assert read_history(tmp_path) == history and read_config(tmp_path) == (tiny(), "tiny")


def test_automatic_names() -> None:
    assert is_automatic(default_name(tiny(), "tiny"), "tiny") and is_automatic("tiny-0123abcd", "tiny")
    for name in ("tiny", "tiny-0123abc", "tiny-0123abcde", "ar-tiny-0123abcd", "tiny-0123abcg"):
        assert not is_automatic(name, "tiny"), name


def test_a_difference_in_words() -> None:
    (kind,) = compare(BASE, dataclasses.replace(BASE, codec=TableConfig()))
    assert str(kind) == 'codec.kind: "own" -> "table"' and kind.role == "training"


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no configuration at"):
        read_config(tmp_path / "missing")


def test_resolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELF_HOME", str(tmp_path))
    config = resolve(tiny(), "tiny")
    assert config.storage == tmp_path == default_storage()
    assert config.name == default_name(tiny(), "tiny") == f"tiny-{config_hash(tiny())}"
    assert resolve(config, "other") == config
    monkeypatch.delenv("ELF_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert resolve(tiny(), "tiny").storage == Path("/home/someone/elf-runs")
    with pytest.raises(ValueError, match="without slashes"):
        resolve(dataclasses.replace(tiny(), name="../x"), "tiny")


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: TrainConfig(global_batch=64, workers=3), "does not divide among train.workers 3"),
        (lambda: TrainConfig(global_batch=64, workers=2, micro_batch=5), "divisor of 32"),
        (lambda: TrainConfig(steps=0), "train.steps is 0"),
        (lambda: EngineConfig(zero=4), "stages 0, 1, 2 and 3"),
        (lambda: EngineConfig(kind="plain", zero=1), "no effect with engine.kind plain"),
        (lambda: TrackingConfig(kind="null", uri="http://x"), "no effect with tracking.kind null"),
        (lambda: dataclasses.replace(tiny(), train=TrainConfig(workers=2), engine=EngineConfig(kind="plain")), "one process"),
        (lambda: dataclasses.replace(BASE, train=TrainConfig(steps=10), optim=OptimConfig(warmup_steps=50)), "optim.warmup_steps 50"),
        (lambda: DataConfig(source_length=8), "data.source_length 8 has no effect without data.source_column"),
        (lambda: DataConfig(split_by="source"), "data.split_by source has no effect without data.source_column"),
        (lambda: DataConfig(source_column="de", source_length=8), "a pair of source and target is a row of its own"),
        (lambda: DataConfig(source_column="text", source_length=8, packing="document"), "are both 'text'"),
        (lambda: DataConfig(source_column="de", packing="document"), "data.source_length is 0, but must be at least 1"),
        (lambda: DataConfig(source_column="de", source_length=15, length=16, packing="document"), "use 1 to 14, half of the row"),
    ],
)
def test_contradictions_are_refused_with_the_way_out(build: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        build()


def test_the_engine_follows_the_workers() -> None:
    config = tiny()
    assert config.engine_kind == "plain"
    assert dataclasses.replace(config, train=TrainConfig(workers=2)).engine_kind == "deepspeed"
    assert dataclasses.replace(config, engine=EngineConfig(zero=1)).engine_kind == "deepspeed"


def test_flat_paths_are_the_fields() -> None:
    flat = flatten(RunConfig(codec=OwnConfig(), process=EmbeddedFlow(), data=DataConfig(paths=("a", "b"))))
    assert flat["data.paths"] == ["a", "b"]
    assert flat["codec.kind"] == "own" and flat["process.kind"] == "elf"
    expected = {p for p in leaf_paths(RunConfig) if p not in ("codec", "process")}
    expected |= {f"codec.{p}" for p in leaf_paths(OwnConfig)} | {f"process.{p}" for p in leaf_paths(EmbeddedFlow)}
    assert set(flat) == expected | {"codec.kind", "process.kind"}
