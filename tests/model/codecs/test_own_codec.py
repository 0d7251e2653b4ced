"""The own codec: latent statistics, and what it does at its limits. Its masks are in test_codecs.py."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from elf.batch import Batch
from elf.codecs import OwnCodec, OwnConfig, TableConfig
from elf.nn.config import NetworkConfig
from elf.nn.mask import encoder_mask
from elf.nn.token_model import TokenModel

NETWORK = NetworkConfig(hidden=16, depth=2, heads=2, bottleneck=4)
CONFIG = OwnConfig(channels=6, network=NETWORK, corrupt_prob=0.3, random_share=0.5)


@pytest.fixture
def network() -> TokenModel:
    torch.manual_seed(4)
    built = CONFIG.encoder_process().build_network(CONFIG.network, vocab_size=40, channels=6, length=12)
    assert isinstance(built, TokenModel)
    return built


def test_statistics_are_those_of_the_tokens(network: TokenModel, random_batch: Callable[..., Batch]) -> None:
    batches = [random_batch([12, 5], seed=1), random_batch([7, 9, 3], [2, 9, 0], seed=2)]
    batches[1] = replace(batches[1], weight_B=torch.tensor([1.0, 1.0, 0.0]))
    codec = OwnCodec.from_network(network, CONFIG, iter(batches))
    states = []
    for batch in batches:
        raw_BLC = network(batch.ids_BL, encoder_mask(batch))[0].detach().double().numpy()
        for b, (length, weight) in enumerate(zip(batch.length_B.tolist(), batch.weight_B.tolist(), strict=True)):
            states.append(raw_BLC[b, : length if weight else 0])
    states_NC = np.concatenate(states)
    assert len(states_NC) == 12 + 5 + 7 + 9
    assert_close(codec.mean_C, torch.from_numpy(states_NC.mean(0)).float())
    assert_close(codec.std_C, torch.from_numpy(states_NC.std(0)).float())


def test_states_over_the_sample_have_mean_0_and_deviation_1(network: TokenModel, random_batch: Callable[..., Batch]) -> None:
    batch = random_batch([12] * 8)
    states_NC = OwnCodec.from_network(network, CONFIG, [batch]).encode(batch).flatten(0, 1)
    assert_close(states_NC.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    assert_close(states_NC.std(0, correction=0), torch.ones(6), atol=1e-4, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.7, 1e5])
def test_a_constant_channel_is_centred_and_not_blown_up(
    network: TokenModel, random_batch: Callable[..., Batch], value: float
) -> None:
    projection = network.to_states
    assert isinstance(projection, nn.Linear)
    with torch.no_grad():
        projection.weight[2] = 0
        projection.bias[2] = value
    batch = random_batch([12, 8])
    codec = OwnCodec.from_network(network, CONFIG, [batch])
    assert codec.std_C[2] == 1
    assert_close(codec.encode(batch)[..., 2], torch.zeros(2, 12))
    assert (codec.std_C[[0, 1, 3, 4, 5]] != 1).all()


def test_the_codec_is_a_frozen_copy(network: TokenModel, random_batch: Callable[..., Batch]) -> None:
    batch = random_batch([12, 8])
    network.train()
    codec = OwnCodec.from_network(network, CONFIG, [batch])
    before_BLC = codec.encode(batch)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    assert torch.equal(codec.encode(batch), before_BLC)
    assert network.training and all(p.requires_grad for p in network.parameters())
    assert not codec.network.training and not any(p.requires_grad for p in codec.network.parameters())


def test_bfloat16_is_near_float32(network: TokenModel, random_batch: Callable[..., Batch]) -> None:
    batch = random_batch([12, 8])
    exact, rounded = (
        OwnCodec.from_network(network, config, [batch]).encode(batch) for config in (CONFIG, replace(CONFIG, precision="bf16"))
    )
    error = ((exact - rounded).square().mean() / exact.square().mean()).sqrt()
    assert 1e-4 < error < 0.1, "bfloat16 keeps 8 bits; no error at all would mean that the setting does nothing"


def test_statistics_of_nothing_or_of_a_diverged_encoder(network: TokenModel, random_batch: Callable[..., Batch]) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        OwnCodec.from_network(network, CONFIG, [])
    with torch.no_grad():
        network.token_embedding.weight[3] = torch.nan
    with pytest.raises(ValueError, match=r"diverged; lower codec\.lr"):
        OwnCodec.from_network(network, CONFIG, [random_batch([12] * 20)])


def test_a_row_that_is_too_long_is_refused(own_codec: OwnCodec, random_batch: Callable[..., Batch]) -> None:
    assert own_codec.encode(random_batch([8], length=8)).shape == (1, 8, 6)
    with pytest.raises(ValueError, match=r"row of 13 tokens cannot be encoded: .* rows of 12 tokens"):
        own_codec.encode(random_batch([5], length=13))


def test_a_trained_codec_by_its_path(own_codec: OwnCodec, tmp_path: Path) -> None:
    own_codec.save(tmp_path / "own")
    assert OwnConfig(path=str(tmp_path / "own")).build(vocab_size=40).fingerprint == own_codec.fingerprint
    TableConfig(channels=4).build(vocab_size=40).save(tmp_path / "table")
    with pytest.raises(ValueError, match="holds a codec of kind table"):
        OwnConfig(path=str(tmp_path / "table")).build(vocab_size=40)
    with pytest.raises(ValueError, match=r"codec\.path is empty"):
        OwnConfig().build(vocab_size=40)
    with pytest.raises(FileNotFoundError, match=r"codec\.json is missing"):
        OwnConfig(path=str(tmp_path / "nothing")).build(vocab_size=40)


def test_settings_reach_the_training_process() -> None:
    process = CONFIG.encoder_process()
    assert (process.corrupt_prob, process.random_share) == (0.3, 0.5)


@pytest.mark.parametrize("settings", [{"channels": 0}, {"steps": 0}, {"lr": 0.0}, {"corrupt_prob": 1.5}, {"random_share": -0.1}])
def test_bad_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"codec.{next(iter(settings))} is"):
        OwnConfig(**settings)  # type: ignore[arg-type]
