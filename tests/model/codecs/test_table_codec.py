"""The token tables: distribution, normalisation, sources."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from elf.batch import Batch
from elf.codecs import OwnCodec, T5Config, TableConfig
from elf.codecs.table import _normalised


def test_states_are_rows_of_the_table(random_batch: Callable[..., Batch]) -> None:
    codec, batch = TableConfig(channels=5).build(vocab_size=40), random_batch([12, 7], [3, 0])
    states_BLC = codec.encode(batch, torch.tensor([True, False]))
    for b, ids in enumerate(batch.ids_BL.tolist()):
        for position, token in enumerate(ids):
            assert torch.equal(states_BLC[b, position], codec.token_table_VC[token])


def test_gaussian_rows_are_unit_normal_and_follow_the_seed() -> None:
    table_VC = TableConfig(channels=64).build(vocab_size=4000).token_table_VC
    values = table_VC.flatten().double().sort().values
    quantiles = torch.distributions.Normal(0.0, 1.0).cdf(values)
    distance = (quantiles - (torch.arange(len(values)) + 0.5) / len(values)).abs().max()
    assert distance < 1.95 / len(values) ** 0.5, "Kolmogorov-Smirnov at the level of 0.1 %"
    assert torch.equal(table_VC, TableConfig(channels=64).build(vocab_size=4000).token_table_VC)
    assert not torch.equal(table_VC, TableConfig(channels=64, seed=1).build(vocab_size=4000).token_table_VC)


def test_normalised_rows_of_a_t5(t5_folder: Path) -> None:
    codec = TableConfig(table="normalised", source=str(t5_folder)).build(vocab_size=40)
    assert (codec.vocab_size, codec.channels) == (40, 32)
    raw_VC = load_file(t5_folder / "model.safetensors")["shared.weight"]
    for row, raw in zip(codec.token_table_VC, raw_VC, strict=True):
        assert_close(row, torch.nn.functional.layer_norm(raw, (32,), eps=0.0))


def test_normalised_rows_of_saved_codecs(t5_folder: Path, own_codec: OwnCodec, tmp_path: Path) -> None:
    own_codec.save(tmp_path / "own")
    from_own = TableConfig(table="normalised", source=str(tmp_path / "own")).build(vocab_size=40)
    assert (from_own.vocab_size, from_own.channels) == (40, 16), "one row per id, without the mask id"
    expected_VC = torch.nn.functional.layer_norm(own_codec.network.token_embedding.weight[:40], (16,), eps=0.0)
    assert_close(from_own.token_table_VC, expected_VC)

    T5Config(source=str(t5_folder)).build(vocab_size=40).save(tmp_path / "t5")
    by_folder, by_codec = (
        TableConfig(table="normalised", source=str(source)).build(vocab_size=40) for source in (t5_folder, tmp_path / "t5")
    )
    assert by_folder.fingerprint == by_codec.fingerprint


def test_a_row_of_equal_numbers_becomes_zero() -> None:
    table_VC = torch.tensor([[0.1, 0.1, 0.1], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    half = 1.5**0.5
    assert_close(_normalised(table_VC), torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [-half, 0.0, half]]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, "channels is 0"),
        ({"source": "x"}, "no effect with codec.table gaussian"),
        ({"table": "normalised"}, "needs codec.source"),
        ({"table": "normalised", "source": "x", "channels": 64}, "channels 64 .* no effect"),
        ({"table": "normalised", "source": "x", "seed": 3}, "seed 3 have no effect"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TableConfig(**settings)  # type: ignore[arg-type]
