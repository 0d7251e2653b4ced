"""What every codec keeps to, whatever its kind; and the refusals of folders that hold no sound codec."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch.testing import assert_close

from elf.batch import Batch
from elf.codecs import CODECS, Codec, CodecConfig, check_codec, load_codec
from elf.codecs.store import SavedCodec, write_codec

MakeBatch = Callable[..., Batch]
MakeCodec = Callable[[str], Codec]
every_kind = pytest.mark.parametrize("kind", ["t5", "t5-bf16", "own", "table", "table-normalised"])
with_context = pytest.mark.parametrize("kind", ["t5", "own"])


def close(a: torch.Tensor, b: torch.Tensor, kind: str) -> None:
    """Equal up to the rounding of another batch shape; bfloat16 keeps 8 bits, and the states are of order 10."""
    rtol, atol = (0.05, 0.3) if kind.endswith("bf16") else (1e-4, 1e-4)
    assert_close(a, b, rtol=rtol, atol=atol)


def row(batch: Batch, index: int, start: int = 0, stop: int | None = None) -> Batch:
    """Tokens start:stop of one row, alone and without a condition."""
    return Batch.of_ids(batch.ids_BL[index : index + 1, start:stop])


@every_kind
def test_states_have_the_promised_form(kind: str, make_codec: MakeCodec, random_batch: MakeBatch) -> None:
    codec = make_codec(kind)
    states_BLC = codec.encode(random_batch([12, 7]))
    assert states_BLC.shape == (2, 12, codec.channels)
    assert states_BLC.dtype == torch.float32
    assert not states_BLC.requires_grad
    assert not states_BLC.is_inference(), "a state has to be usable in a forward pass that is differentiated"
    assert codec.vocab_size == 40


@every_kind
def test_round_trip_is_exact(kind: str, make_codec: MakeCodec, random_batch: MakeBatch, tmp_path: Path) -> None:
    codec, batch = make_codec(kind), random_batch([12, 7, 9], [4, 0, 9])
    codec.save(tmp_path / "codec")
    random_state = torch.get_rng_state()
    loaded = load_codec(tmp_path / "codec")
    assert torch.equal(torch.get_rng_state(), random_state), "loading a codec must not move a run's random numbers"
    assert type(loaded) is type(codec)
    assert torch.equal(loaded.encode(batch), codec.encode(batch))
    assert loaded.fingerprint == codec.fingerprint
    assert (loaded.channels, loaded.vocab_size, loaded.max_length) == (codec.channels, codec.vocab_size, codec.max_length)
    assert sorted(path.name for path in (tmp_path / "codec").iterdir()) == ["codec.json", "codec.safetensors"]


@every_kind
def test_encoding_is_deterministic_and_leaves_random_numbers_alone(
    kind: str, make_codec: MakeCodec, random_batch: MakeBatch
) -> None:
    codec, batch = make_codec(kind), random_batch([12, 5])
    random_state = torch.get_rng_state()
    assert torch.equal(codec.encode(batch), codec.encode(batch))
    assert torch.equal(torch.get_rng_state(), random_state)


@every_kind
def test_rows_are_independent(kind: str, make_codec: MakeCodec, random_batch: MakeBatch) -> None:
    codec, batch = make_codec(kind), random_batch([12, 7, 9], [4, 0, 9])
    together_BLC = codec.encode(batch)
    for i in range(3):
        alone = Batch.of_ids(batch.ids_BL[i : i + 1], batch.length_B[i : i + 1], batch.cond_length_B[i : i + 1])
        tokens = int(batch.length_B[i])
        close(codec.encode(alone)[0, :tokens], together_BLC[i, :tokens], kind)


@every_kind
def test_padding_does_not_reach_tokens(kind: str, make_codec: MakeCodec, random_batch: MakeBatch) -> None:
    codec, batch = make_codec(kind), random_batch([7, 7, 9], [0, 3, 9])
    other = replace(batch, ids_BL=torch.where(batch.valid_BL, batch.ids_BL, (batch.ids_BL + 1) % 40))
    assert not torch.equal(batch.ids_BL, other.ids_BL)
    valid_BL = batch.valid_BL
    assert torch.equal(codec.encode(batch)[valid_BL], codec.encode(other)[valid_BL])
    close(codec.encode(batch)[0, :7], codec.encode(row(batch, 0, 0, 7))[0], kind)


@every_kind
def test_no_row_gives_nan(kind: str, make_codec: MakeCodec, random_batch: MakeBatch) -> None:
    codec = make_codec(kind)
    assert codec.encode(random_batch([0, 12])).isfinite().all()
    batch = random_batch([0, 9, 9, 12], [0, 9, 4, 12])  # empty; all condition, with padding behind; both; no target at all
    assert codec.encode(batch, torch.tensor([True, True, True, True])).isfinite().all()


@every_kind
def test_condition_does_not_see_the_target(kind: str, make_codec: MakeCodec, random_batch: MakeBatch) -> None:
    codec, batch = make_codec(kind), random_batch([12, 10], [5, 3])
    states_BLC = codec.encode(batch)
    for i, cond in enumerate([5, 3]):
        close(states_BLC[i, :cond], codec.encode(row(batch, i, 0, cond))[0], kind)


@every_kind
def test_dropped_target_does_not_see_the_condition(kind: str, make_codec: MakeCodec, random_batch: MakeBatch) -> None:
    """Positions are relative in every codec here, so a target without its condition is that target as a text of its own."""
    codec, batch = make_codec(kind), random_batch([12, 10], [5, 3])
    states_BLC = codec.encode(batch, torch.tensor([False, True]))
    close(states_BLC[1, 3:10], codec.encode(row(batch, 1, 3, 10))[0], kind)
    close(states_BLC[1, :3], codec.encode(row(batch, 1, 0, 3))[0], kind)
    close(states_BLC[0], codec.encode(batch)[0], kind)


@with_context
def test_target_sees_the_condition(kind: str, make_codec: MakeCodec, random_batch: MakeBatch) -> None:
    codec, batch = make_codec(kind), random_batch([12, 12], [5, 5])
    changed = batch.ids_BL.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 40
    before_BLC, after_BLC = codec.encode(batch), codec.encode(replace(batch, ids_BL=changed))
    assert ((before_BLC - after_BLC)[:, 5:].abs().amax(-1) > 1e-3).all()
    drop_B = torch.tensor([True, True])
    before_BLC, after_BLC = codec.encode(batch, drop_B), codec.encode(replace(batch, ids_BL=changed), drop_B)
    assert torch.equal(before_BLC[:, 5:], after_BLC[:, 5:])


@every_kind
def test_a_callers_autocast_has_no_say(kind: str, make_codec: MakeCodec, random_batch: MakeBatch) -> None:
    codec, batch = make_codec(kind), random_batch([12, 7])
    plain_BLC = codec.encode(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(codec.encode(batch), plain_BLC)


def test_fingerprints_tell_codecs_apart(make_codec: MakeCodec) -> None:
    kinds = ["t5", "t5-bf16", "own", "table", "table-normalised"]
    fingerprints = [make_codec(kind).fingerprint for kind in kinds]
    assert len(set(fingerprints)) == len(kinds)
    assert all(len(fingerprint) == 64 for fingerprint in fingerprints)
    assert fingerprints == [make_codec(kind).fingerprint for kind in kinds]


def test_the_registry_holds_the_union() -> None:
    assert list(CODECS.values()) == list(get_args(CodecConfig))
    assert [vars(config)["kind"] for config in CODECS.values()] == list(CODECS) == ["t5", "own", "table"]


@pytest.fixture
def saved(make_codec: MakeCodec, tmp_path: Path) -> Path:
    make_codec("table").save(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("name", ["codec.json", "codec.safetensors"])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        load_codec(saved)


def test_altered_weights_are_refused(saved: Path) -> None:
    data = bytearray((saved / "codec.safetensors").read_bytes())
    data[-1] ^= 1
    (saved / "codec.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="altered or damaged"):
        load_codec(saved)


def test_altered_settings_are_refused(make_codec: MakeCodec, tmp_path: Path) -> None:
    make_codec("t5").save(tmp_path)
    header = json.loads((tmp_path / "codec.json").read_text())
    header["settings"]["latent_std"] = 1.0
    (tmp_path / "codec.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match=r"settings in .* are not those"):
        load_codec(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": 1, "kind": "table"}'])
def test_a_broken_header_is_refused(saved: Path, text: str) -> None:
    (saved / "codec.json").write_text(text)
    with pytest.raises(ValueError, match="not the header of a codec"):
        load_codec(saved)


def test_unknown_kinds_and_formats_are_refused(saved: Path, tmp_path: Path) -> None:
    write_codec(tmp_path / "new", SavedCodec(kind="bits", settings={}, tensors={"x": torch.ones(2)}))
    with pytest.raises(ValueError, match="kind 'bits', but this version knows own, t5, table"):
        load_codec(tmp_path / "new")
    header = json.loads((saved / "codec.json").read_text())
    (saved / "codec.json").write_text(json.dumps(header | {"format": 99}))
    with pytest.raises(ValueError, match="format 99"):
        load_codec(saved)


def test_saving_again_replaces_the_codec(make_codec: MakeCodec, saved: Path) -> None:
    make_codec("own").save(saved)
    assert load_codec(saved).kind == "own"


def test_check_codec(make_codec: MakeCodec) -> None:
    codec = make_codec("own")
    check_codec(codec, vocab_size=40, length=12)
    check_codec(make_codec("t5"), vocab_size=38, length=100_000)
    with pytest.raises(ValueError, match=r"tokenizer has 41 ids, but the own codec was made for a vocabulary of 40"):
        check_codec(codec, vocab_size=41, length=12)
    with pytest.raises(ValueError, match=r"tokenizer has 19 ids, but the t5 codec"):
        check_codec(make_codec("t5"), vocab_size=19, length=12)
    with pytest.raises(ValueError, match=r"data.length is 13, but the own codec was trained on rows of 12 tokens"):
        check_codec(codec, vocab_size=40, length=13)
