"""A codec of our own: a bidirectional encoder trained on the same shards by token denoising (elf.md D.5).

Shapes: B rows, L tokens, H width of the trunk, C channels, V vocabulary.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from elf.batch import Batch
from elf.codecs.base import Codec
from elf.codecs.store import SavedCodec, read_codec
from elf.nn.config import NetworkConfig, Precision
from elf.nn.mask import encoder_mask
from elf.nn.token_model import TokenModel
from elf.processes.token_denoising import TokenDenoising
from elf.settings import LearningRate, Positive, Seed, Settings, Share, identity_fields

_EXTRA_IDS = 1  # the mask id of token denoising
# A channel whose standard deviation is below a millionth of its mean carries rounding noise alone in float32.
_CONSTANT = 1e-6


@dataclass(frozen=True, kw_only=True)
class OwnConfig(Settings):
    """An encoder trained by token denoising, on the run's own shards before the main run, or earlier."""

    kind: ClassVar[str] = "own"
    prefix: ClassVar[str] = "codec."

    path: str = ""
    """Folder of a trained codec; the settings below then have no effect. Empty: train one, or reuse the one that the same
    settings and data made before."""
    channels: Positive = 128
    """Width of the clean states."""
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(depth=4, hidden=256, heads=4))
    """Trunk of the encoder."""
    steps: Positive = 2000
    """Optimiser steps of the encoder's training."""
    global_batch: Positive = 64
    """Rows per optimiser step of the encoder's training."""
    lr: LearningRate = 1e-3
    """Peak learning rate of the encoder's training."""
    corrupt_prob: Share = 0.25
    """Share of tokens that are corrupted."""
    random_share: Share = 0.2
    """Share of the corrupted tokens that become a random token; the others become the mask id."""
    seed: Seed = 0
    """Seed of the encoder's initial weights, data order and corruption."""
    precision: Precision = "fp32"
    """bf16: run the encoder's matrix products in bfloat16 under autocast."""

    def encoder_process(self, *, loss_on_padding: bool = False) -> TokenDenoising:
        """The process that trains the encoder; ``loss_on_padding`` as in the process that will use its states."""
        return TokenDenoising(corrupt_prob=self.corrupt_prob, random_share=self.random_share, loss_on_padding=loss_on_padding)

    def build(self, *, vocab_size: int) -> "OwnCodec":
        """The trained codec in ``path``, on the CPU.

        Raises ValueError when ``path`` is empty (nothing is trained here) or holds another kind of codec."""
        if not self.path:
            raise ValueError(
                "the own codec has to be trained before it can be used, and codec.path is empty; train it first, or set "
                "codec.path to the folder of one that was"
            )
        saved = read_codec(Path(self.path).expanduser())
        if saved.kind != self.kind:
            raise ValueError(
                f"codec.path {self.path} holds a codec of kind {saved.kind}, but codec own reads its own kind only; point it at "
                "a folder that training an own codec left"
            )
        return OwnCodec.from_saved(saved)


class OwnCodec(Codec):
    """States of a trained encoder, each channel normalised by its mean and standard deviation over a sample of the corpus."""

    kind = "own"

    def __init__(self, network: TokenModel, *, mean_C: Tensor, std_C: Tensor) -> None:
        """network: bidirectional, with a projection to C channels; it is frozen here."""
        assert not network.causal
        self.network = network.eval().requires_grad_(False)
        self.mean_C, self.std_C = mean_C, std_C
        self.channels, self.vocab_size, self.max_length = len(mean_C), network.vocab_size, network.length

    @staticmethod
    def from_network(network: nn.Module, config: OwnConfig, batches: Iterable[Batch]) -> "OwnCodec":
        """A codec of a copy of the trained ``network``, normalised over the tokens of ``batches`` (padding and filler rows do not
        count).

        network: what the training process built, a TokenModel. Raises ValueError when the batches hold no token, or a state is
        not finite."""
        assert isinstance(network, TokenModel)
        network = copy.deepcopy(network).eval().requires_grad_(False)
        network.trunk.precision = config.precision
        device = network.token_embedding.weight.device
        count = 0
        sums_2C = torch.zeros(2, config.channels, dtype=torch.float64)
        for batch in batches:
            batch = batch.to(device)
            states_NC = _states(network, batch, None)[batch.valid_BL & (batch.weight_B[:, None] > 0)].cpu().double()
            count += len(states_NC)
            sums_2C += torch.stack([states_NC.sum(0), states_NC.square().sum(0)])
        if not count:
            raise ValueError("the codec's latent statistics need at least one token, but the data holds none; prepare more text")
        if not bool(sums_2C.isfinite().all()):
            raise ValueError("the trained encoder gives states that are not finite, so its training diverged; lower codec.lr")
        mean_C, square_C = sums_2C / count
        std_C = (square_C - mean_C.square()).clamp_min(0).sqrt()
        std_C = torch.where(std_C > _CONSTANT * mean_C.abs(), std_C, 1.0)
        return OwnCodec(network, mean_C=mean_C.float().to(device), std_C=std_C.float().to(device))

    @torch.no_grad()
    def encode(self, batch: Batch, drop_condition_B: Tensor | None = None) -> Tensor:
        length = batch.ids_BL.shape[1]
        if length > self.network.length:
            raise ValueError(
                f"a row of {length} tokens cannot be encoded: the own codec was trained on rows of {self.network.length} tokens; "
                f"shorten the rows to {self.network.length}, or train a codec with data.length {length}"
            )
        return (_states(self.network, batch, drop_condition_B) - self.mean_C) / self.std_C

    def to(self, device: torch.device | str) -> "OwnCodec":
        self.network.to(device)
        self.mean_C, self.std_C = self.mean_C.to(device), self.std_C.to(device)
        return self

    @property
    def token_table_VC(self) -> Tensor:
        """The encoder's token embeddings (of the trunk's width), float32, without the mask id."""
        return self.network.token_embedding.weight.detach()[: self.vocab_size]

    def _saved(self) -> SavedCodec:
        config = self.network.config
        settings = {
            "network": {name: getattr(config, name) for name in identity_fields(config)},
            "vocab_size": self.vocab_size, "length": self.max_length,
            "channels": self.channels, "precision": self.network.trunk.precision,
        }
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        return SavedCodec(kind=self.kind, settings=settings, tensors=tensors | {"mean": self.mean_C, "std": self.std_C})

    @staticmethod
    def from_saved(saved: SavedCodec) -> "OwnCodec":
        """The codec that was saved, on the CPU."""
        settings = saved.settings
        with torch.random.fork_rng(devices=[]):  # the initial weights, replaced at once, must not move a run's random numbers
            network = TokenModel(
                NetworkConfig(**settings["network"]), vocab_size=settings["vocab_size"], length=settings["length"], causal=False,
                channels=settings["channels"], extra_ids=_EXTRA_IDS, precision=settings["precision"],
            )
        prefix = "network."
        weights = {name.removeprefix(prefix): tensor for name, tensor in saved.tensors.items() if name.startswith(prefix)}
        network.load_state_dict(weights)
        return OwnCodec(network, mean_C=saved.tensors["mean"], std_C=saved.tensors["std"])


@torch.no_grad()
def _states(network: TokenModel, batch: Batch, drop_condition_B: Tensor | None) -> Tensor:
    """Raw states, float32 [B, L, C]; a caller's autocast has no say in them, the trunk's own precision does."""
    with torch.autocast(batch.ids_BL.device.type, enabled=False):
        states_BLC, _ = network(batch.ids_BL, encoder_mask(batch, drop_condition_B), want_logits=False)
    assert isinstance(states_BLC, Tensor)
    return states_BLC.float()
