"""The codec of a run on shared storage: committed whole, and made again where it was damaged."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from small_training import small_config

from elf.codecs.store import DamagedCodec, read_codec
from elf_platform.codec import prepare_codec


def prepared(storage: Path, said: list[str]) -> Path:
    data = SimpleNamespace(tokenizer=SimpleNamespace(vocab_size=31))
    config = small_config()
    config = type(config)(**{**vars(config), "storage": storage})

    def launch(job: object, title: str) -> None:
        raise AssertionError("a table of random states is not trained")

    folder, codec = prepare_codec(config, data, launch, threads=1, log=said.append)  # type: ignore[arg-type]
    assert folder is not None and codec is not None and folder.name == f"table-{codec.fingerprint[:12]}"
    return folder


@pytest.mark.parametrize("how", ["bit flipped", "cut short", "empty", "header cut short", "weights gone"])
def test_a_damaged_codec_is_made_again(tmp_path: Path, how: str) -> None:
    """As a loss of power, or a hand, leaves it; a refusal for ever would need someone to find and remove the folder."""
    said: list[str] = []
    folder = prepared(tmp_path, said)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    weights, header = folder / "codec.safetensors", folder / "codec.json"
    if how == "weights gone":
        weights.unlink()
    elif how == "header cut short":
        header.write_bytes(before["codec.json"][:40])
    else:
        data = bytearray(before["codec.safetensors"])
        data[-5] ^= 1
        weights.write_bytes({"bit flipped": bytes(data), "cut short": before["codec.safetensors"][:-7], "empty": b""}[how])
    with pytest.raises((DamagedCodec, FileNotFoundError)):
        read_codec(folder)
    assert said == []
    assert prepared(tmp_path, said) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert how == "weights gone" or ("damaged" in said[0] and str(folder) in said[0])


def test_what_a_killed_save_left_goes_and_the_codec_is_whole(tmp_path: Path) -> None:
    folder = prepared(tmp_path, [])
    left = folder.with_name(f".writing-{folder.name}-0123456789ab")
    folder.rename(left)
    (left / "codec.json").unlink()
    assert prepared(tmp_path, []) == folder and not left.exists()
    read_codec(folder)


def test_a_codec_of_a_later_version_is_left_as_it_is(tmp_path: Path) -> None:
    folder = prepared(tmp_path, [])
    header = folder / "codec.json"
    header.write_text(header.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(ValueError, match="format 99"):
        prepared(tmp_path, [])
    assert '"format": 99' in header.read_text()
