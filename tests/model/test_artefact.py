"""Artefacts: what is written is what is read, whole or not at all, and every kind of damage is named."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from elf.artefact import Artefact, Sizes, load_artefact, save_artefact
from elf.codecs import Codec, TableConfig
from elf.data.tokenizer import Tokenizer, train_tokenizer
from elf.draws import Draws
from elf.nn.config import NetworkConfig
from elf.processes import Autoregressive, EmbeddedFlow, Process
from elf.sampling.config import SampleConfig

NETWORK = NetworkConfig(hidden=16, depth=1, heads=2, bottleneck=4, prefix_tokens=2)
PROCESS = EmbeddedFlow(noise_scale=1.5, tokens_from="trunk")
LINEAGE = {"run": "tiny-1", "step": 12, "weights": "ema", "code_version": "0", "data_sha256": "ab" * 32}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(iter(["the cat sat on the mat and the dog sat on the cat"] * 4), "bpe", 280)


@pytest.fixture(scope="module")
def sizes(tokenizer: Tokenizer) -> Sizes:
    return Sizes(vocab_size=tokenizer.vocab_size, channels=6, length=8)


@pytest.fixture(scope="module")
def codec(tokenizer: Tokenizer) -> Codec:
    return TableConfig(channels=6).build(vocab_size=tokenizer.vocab_size)


def weights(process: Process, sizes: Sizes, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    network = process.build_network(NETWORK, vocab_size=sizes.vocab_size, channels=sizes.channels, length=sizes.length)
    return {name: torch.randn_like(value) * 0.1 for name, value in network.state_dict().items()}


@pytest.fixture
def save(tmp_path: Path, tokenizer: Tokenizer, sizes: Sizes, codec: Codec) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        given: dict[str, Any] = {
            "process": PROCESS, "network_config": NETWORK, "network_state": weights(PROCESS, sizes), "sizes": sizes,
            "tokenizer": tokenizer, "codec": codec, "lineage": LINEAGE,
        }
        return save_artefact(tmp_path / "artefact", **(given | changes))

    return write


def sample(artefact: Artefact) -> Tensor:
    draws = Draws(seed=3, step=0, rows=np.arange(2), total=2)
    return artefact.process.sample(
        artefact.network, draws, length=artefact.sizes.length, channels=artefact.sizes.channels, config=SampleConfig(steps=2)
    ).ids_BL


def edit_config(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_sources_leave_room_for_a_target_and_old_artefacts_have_none(sizes: Sizes, save: Callable[..., Path]) -> None:
    folder = save(sizes=replace(sizes, source_length=5))
    found = load_artefact(folder).sizes
    assert (found.source_length, found.target_length) == (5, 3)
    config = json.loads((folder / "config.json").read_text())
    config["sizes"]["source_length"] = 8
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"sizes\.source_length is 8, but must be 0 .* in rows of 8 tokens"):
        load_artefact(folder)
    del config["sizes"]["source_length"]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_artefact(folder).sizes == sizes


def test_what_is_loaded_is_what_was_saved(save: Callable[..., Path], sizes: Sizes, tokenizer: Tokenizer, codec: Codec) -> None:
    folder = save()
    artefact = load_artefact(folder)
    assert (artefact.process, artefact.network_config, artefact.sizes, artefact.lineage) == (PROCESS, NETWORK, sizes, LINEAGE)
    state = artefact.network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights(PROCESS, sizes).items())
    assert not artefact.network.training
    assert artefact.tokenizer.fingerprint == tokenizer.fingerprint
    assert artefact.codec is not None and artefact.codec.fingerprint == codec.fingerprint
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
        "codec/codec.json", "codec/codec.safetensors", "config.json", "model.safetensors", "tokenizer.json",
    ]
    shutil.move(folder, folder.with_name("elsewhere"))
    assert torch.equal(sample(load_artefact(folder.with_name("elsewhere"))), sample(artefact)), "an artefact can be moved"


def test_a_process_without_codec_and_a_tokenizer_given_by_path(
    save: Callable[..., Path], sizes: Sizes, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    process = Autoregressive(loss_on_padding=True)
    path = tokenizer.save(tmp_path / "tok.json")
    folder = save(process=process, network_state=weights(process, sizes), codec=None, tokenizer=path)
    artefact = load_artefact(folder, precision="bf16")
    assert artefact.process == process and artefact.codec is None
    assert artefact.tokenizer.fingerprint == tokenizer.fingerprint
    assert not (folder / "codec").exists()


def test_weights_that_are_views_of_one_buffer_are_written(save: Callable[..., Path], sizes: Sizes) -> None:
    """As they are when taken from a flat master copy."""
    state = weights(PROCESS, sizes)
    buffer = torch.cat([value.reshape(-1) for value in state.values()])
    pieces = buffer.split([value.numel() for value in state.values()])
    views = {name: piece.view(value.shape) for (name, value), piece in zip(state.items(), pieces, strict=True)}
    written = load_file(save(network_state=views) / "model.safetensors")
    assert all(torch.equal(written[name], value) for name, value in state.items())


def test_writing_twice_and_overwriting(save: Callable[..., Path], sizes: Sizes) -> None:
    folder = save()
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    save()
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp, "the same content is left alone"
    other = weights(PROCESS, sizes, seed=1)
    with pytest.raises(ValueError, match="holds another artefact already"):
        save(network_state=other)
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    save(network_state=other, overwrite=True)
    assert torch.equal(load_artefact(folder).network.state_dict()["time_tokens"], other["time_tokens"])
    assert [p.name for p in folder.parent.iterdir()] == ["artefact"], "nothing temporary is left"


def test_a_damaged_copy_of_the_same_content_is_written_again(save: Callable[..., Path]) -> None:
    folder = save()
    (folder / "model.safetensors").write_bytes(b"cut short")
    save()
    load_artefact(folder)


def test_foreign_folders_and_files_are_left_alone(save: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "artefact").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        save(overwrite=True)
    (tmp_path / "artefact").unlink()
    (tmp_path / "artefact").mkdir()
    save()
    shutil.rmtree(tmp_path / "artefact")
    (tmp_path / "artefact").mkdir()
    (tmp_path / "artefact" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty and holds no artefact"):
        save(overwrite=True)
    assert [p.name for p in tmp_path.rglob("*")] == ["artefact", "thesis.txt"]


def test_a_failed_write_leaves_nothing(save: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save(lineage={"step": object()})
    assert list(tmp_path.iterdir()) == []


def test_parts_that_do_not_fit_are_refused_before_anything_is_written(
    save: Callable[..., Path], sizes: Sizes, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    state = weights(PROCESS, sizes)
    with pytest.raises(ValueError, match=r"1 missing \(mode_tokens"):
        save(network_state={name: value for name, value in state.items() if name != "mode_tokens"})
    with pytest.raises(ValueError, match="the tokenizer has"):
        small = replace(sizes, vocab_size=tokenizer.vocab_size - 1)
        save(sizes=small, network_state=weights(PROCESS, small))
    with pytest.raises(ValueError, match="5 channels, but the network takes 6"):
        save(codec=TableConfig(channels=5).build(vocab_size=tokenizer.vocab_size))
    assert list(tmp_path.iterdir()) == []


def test_a_network_may_know_more_ids_than_the_tokenizer(save: Callable[..., Path], sizes: Sizes) -> None:
    """T5's own table has 32128 rows for 32100 ids."""
    wide = replace(sizes, vocab_size=sizes.vocab_size + 28)
    assert load_artefact(save(sizes=wide, network_state=weights(PROCESS, wide))).sizes == wide


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "codec/codec.safetensors"])
def test_missing_and_altered_files_are_named(save: Callable[..., Path], name: str) -> None:
    path = save() / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=rf"{name} has SHA-256 .*altered or damaged"):
        load_artefact(path.parents[name.count("/")])
    path.unlink()
    with pytest.raises(ValueError, match=f"is not whole: {name}"):
        load_artefact(path.parents[name.count("/")])


def test_damaged_configurations_are_named(save: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no artefact at"):
        load_artefact(tmp_path / "nowhere")
    folder = save()
    whole = (folder / "config.json").read_text()
    faults: list[tuple[Callable[[dict[str, Any]], None], str]] = [
        (lambda c: c.update(format=2), "has format 2, but this version reads format 1"),
        (lambda c: c.pop("format"), "not the configuration of an artefact"),
        (lambda c: c.pop("sizes"), "lacks parts"),
        (lambda c: c["process"].update(kind="elv"), "a process 'elv'"),
        (lambda c: c["process"].update(noise_scal=1.0), r"process\.noise_scal; the nearest known one is noise_scale"),
        (lambda c: c["network"].update(hidden="wide"), "do not hold together"),
        (lambda c: c["sizes"].pop("length"), "do not hold together: .*length"),
        (lambda c: c["tokenizer"].update(vocab_size=999), "written with a tokenizer of 999"),
        (lambda c: c["sizes"].update(vocab_size=100), "of another shape"),
    ]
    for change, message in faults:
        (folder / "config.json").write_text(whole)
        edit_config(folder, change)
        with pytest.raises(ValueError, match=message):
            load_artefact(folder)
    (folder / "config.json").write_text(whole[:-20])
    with pytest.raises(ValueError, match="is not JSON"):
        load_artefact(folder)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match="not the configuration of an artefact"):
        load_artefact(folder)


def test_weights_of_another_network_are_named_tensor_by_tensor(save: Callable[..., Path]) -> None:
    """Files that agree with their hashes, but not with the network."""
    import hashlib

    folder = save()
    state = load_file(folder / "model.safetensors")
    state["extra.weight"] = torch.zeros(2)
    state["mode_tokens"] = torch.zeros(1, 3, 16)
    del state["scale_tokens"]
    save_file(state, folder / "model.safetensors")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    edit_config(folder, lambda c: c["files"].update({"model.safetensors": digest}))
    with pytest.raises(ValueError) as raised:
        load_artefact(folder)
    message = str(raised.value)
    assert "1 missing (scale_tokens (1, 2, 16))" in message
    assert "1 not expected (extra.weight (2,))" in message
    assert "1 of another shape (mode_tokens (1, 3, 16) instead of (1, 2, 16))" in message
    assert "\n" not in message


def test_another_tokenizer_is_noticed_even_with_its_own_hash(save: Callable[..., Path]) -> None:
    import hashlib

    folder = save()
    train_tokenizer(iter(["zebra zebra zebra"]), "bpe", 264).save(folder / "tokenizer.json")
    digest = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    edit_config(folder, lambda c: c["files"].update({"tokenizer.json": digest}))
    with pytest.raises(ValueError, match="its texts would be wrong"):
        load_artefact(folder)
