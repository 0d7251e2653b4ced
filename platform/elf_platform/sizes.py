"""Sizes of a run before anything is prepared: its network, and the least memory that a worker and the end of the run allocate."""

from dataclasses import replace

import torch
from torch import nn

from elf_platform.config import RunConfig

_T5_SMALL = (32_100, 512)  # vocabulary and channels of the published models (elf.md A.1)
_KEPT = 8  # widths of numbers per position and block that the backward pass needs; counted low: the blocks keep 13 or more


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


def count_parameters(config: RunConfig, *, vocab_size: int, channels: int) -> int:
    """Parameters of the run's network, from one block and two, so that a million blocks are counted as quickly.

    Raises ValueError when not even the names of its numbers fit 64 bits."""
    one, two = (replace(config, network=replace(config.network, depth=depth)) for depth in (1, 2))
    try:
        first, second = (
            sum(p.numel() for p in shape_network(c, vocab_size=vocab_size, channels=channels).parameters()) for c in (one, two)
        )
    except (RuntimeError, OverflowError) as error:
        raise ValueError(
            f"a network with hidden {config.network.hidden}, prefix_tokens {config.network.prefix_tokens}, bottleneck "
            f"{config.network.bottleneck}, {channels} channels, a vocabulary of {vocab_size} and rows of {config.data.length} tokens has "
            "a tensor of more than 2^63 bytes, which no machine has; use smaller sizes"
        ) from error
    return first + (config.network.depth - 1) * (second - first)


def least_allocations(config: RunConfig, *, vocab_size: int, channels: int) -> dict[str, float]:
    """Bytes that a worker allocates beside weights and optimiser, by what they are for; counted low, since they refuse what cannot be.

    The samples at the end are drawn together, by one process."""
    train, network, process = config.train, config.network, config.process
    number = 2.0 if train.precision == "bf16" else 4.0
    share = -(-train.global_batch // train.workers)
    rows = min(train.micro_batch or share, share)
    length = config.data.length
    positions = length + (3 * network.prefix_tokens if process.needs_codec else 0)
    kept = 1 if train.activation_checkpointing else _KEPT
    decoded = float(getattr(process, "decoder_prob", 1.0))
    states = channels if process.needs_codec else network.hidden
    needs = {
        f"activations of {rows} rows": number * rows * positions * network.hidden * network.depth * kept,
        f"token logits of {rows} rows and their gradient": 8.0 * decoded * rows * length * vocab_size,
        f"noise and states of {rows} rows": 8.0 * rows * length * states,
        f"the next batches of {share} rows": 3 * 4.0 * share * (length + 2),
        "rotary tables": 8.0 * positions * network.hidden / network.heads,
    }
    if process.needs_codec:
        count = config.sample.count
        needs[f"{count} samples at the end and their token logits"] = 4.0 * count * length * (states + vocab_size)
    needs["times of the sampling steps"] = 8.0 * config.sample.steps
    return needs
