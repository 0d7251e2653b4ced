"""Small codecs of every kind, and a small random T5 on disk."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from elf.batch import Batch
from elf.codecs import Codec, OwnCodec, OwnConfig, T5Config, TableConfig
from elf.nn.config import NetworkConfig

VOCAB, LENGTH, CHANNELS = 40, 12, 6


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.json and model.safetensors of a T5 encoder with two layers, as the transformers library writes them."""
    from transformers import T5Config as Architecture
    from transformers import T5EncoderModel

    folder = tmp_path_factory.mktemp("t5")
    torch.manual_seed(1)
    architecture = Architecture(
        vocab_size=VOCAB, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, relative_attention_num_buckets=8,
        relative_attention_max_distance=10,
    )
    model = T5EncoderModel(architecture)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)  # norm weights are 1 at first, which would hide a norm left out
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def random_batch() -> Callable[..., Batch]:
    def make(length_B: list[int], cond_length_B: list[int] | None = None, *, seed: int = 0, length: int = LENGTH) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        ids_BL = torch.randint(0, VOCAB, (len(length_B), length), generator=generator)
        condition = torch.tensor(cond_length_B) if cond_length_B is not None else None
        return Batch.of_ids(ids_BL, torch.tensor(length_B), condition)

    return make


@pytest.fixture
def own_codec(random_batch: Callable[..., Batch]) -> OwnCodec:
    config = OwnConfig(channels=CHANNELS, network=NetworkConfig(hidden=16, depth=2, heads=2, bottleneck=4))
    torch.manual_seed(2)
    network = config.encoder_process().build_network(config.network, vocab_size=VOCAB, channels=CHANNELS, length=LENGTH)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.4)  # far from the initial weights, so that attention is far from uniform
    return OwnCodec.from_network(network, config, [random_batch([LENGTH] * 4, seed=3)])


@pytest.fixture
def make_codec(t5_folder: Path, own_codec: OwnCodec) -> Callable[[str], Codec]:
    def make(kind: str) -> Codec:
        return {
            "t5": lambda: T5Config(source=str(t5_folder)).build(vocab_size=VOCAB),
            "t5-bf16": lambda: T5Config(source=str(t5_folder), precision="bf16", latent_mean=0.5).build(vocab_size=VOCAB),
            "own": lambda: own_codec,
            "table": lambda: TableConfig(channels=CHANNELS, seed=5).build(vocab_size=VOCAB),
            "table-normalised": lambda: TableConfig(table="normalised", source=str(t5_folder)).build(vocab_size=VOCAB),
        }[kind]()

    return make
