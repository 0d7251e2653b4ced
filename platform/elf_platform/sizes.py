"""Sizes of a run's network before anything is prepared: for --print and for checks of memory and disk."""

import torch
from torch import nn

from elf_platform.config import RunConfig

_T5_SMALL = (32_100, 512)  # vocabulary and channels of the published models (elf.md A.1)


def expected_sizes(config: RunConfig) -> tuple[int, int]:
    """Vocabulary and channels as far as the settings tell; where only the data or a pretrained encoder decides, the published ones."""
    trained = config.data.tokenizer.source in ("bpe", "unigram")
    vocab_size = config.data.tokenizer.vocab_size if trained else _T5_SMALL[0]
    return vocab_size, int(getattr(config.codec, "channels", _T5_SMALL[1]))


def shape_network(config: RunConfig, *, vocab_size: int, channels: int) -> nn.Module:
    """The run's network on the meta device: names and shapes, no memory and no values."""
    with torch.device("meta"):
        return config.process.build_network(
            config.network, vocab_size=vocab_size, channels=channels, length=config.data.length, precision=config.train.precision
        )
